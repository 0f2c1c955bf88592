"""Training a network that enlarges to any size, on pixels drawn from crops of random scale."""
