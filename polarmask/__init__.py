"""PolarMask: the reference model, its trainer, evaluation and prediction."""
