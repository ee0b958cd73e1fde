"""Data sets, and samples of them."""
