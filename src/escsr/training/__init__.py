"""Training: a recipe, pairs of images, and the loop. Needs the extra ``escsr[train]``."""
