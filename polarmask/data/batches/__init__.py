"""Batches for training: augmentation, the order of the images, and the loader."""
