"""Metrics as lines on stdout."""

from collections.abc import Mapping


def show_metrics(metrics: Mapping[str, float]) -> None:
    """Prints a line for each metric, and says what −1 means where one has it."""
    for name, value in metrics.items():
        print(f"{name:>24}: {value:.4f}")
    if -1 in metrics.values():
        print("-1: there are no instances of that size or category")
