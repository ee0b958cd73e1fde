"""StarDist's own compiled functions, without the rest of its package."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np

STARDIST = Path(__file__).parents[2] / ".cache" / "stardist" / "stardist" / "lib"  # where `make bench` puts its wheel


@cache
def stardist() -> ModuleType | None:
    """The compiled half of StarDist; the package as a whole needs TensorFlow."""
    suffix = f"cpython-{sys.version_info.major}{sys.version_info.minor}-*.so"
    for library in STARDIST.glob(f"stardist2d.{suffix}"):
        spec = spec_from_file_location("stardist2d", library)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return None


def stardist_distances(labels: np.ndarray, num_rays: int = 32) -> np.ndarray:
    return stardist().c_star_dist(labels, np.int32(num_rays), np.int32(1), np.int32(1))
