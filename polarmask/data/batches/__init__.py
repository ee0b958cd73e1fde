"""From samples to batches: augmentation, the order of the images, and the loader."""
