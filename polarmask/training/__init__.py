"""The trainer: its loop, and what a run writes, keeps and goes on from."""

from .trainer import train

__all__ = ["train"]
