"""Photographs as batches of LR and HR patches: folders, shards, crops, cache, prefetching."""
