"""GEOS' IoU of polygons."""

from __future__ import annotations

import numpy as np
import shapely
from cases import Candidates


def neighbours(inputs: Candidates) -> np.ndarray:
    """Compute the IoU of each polygon and the next one."""
    shapes = shapely.polygons(inputs.polygons.double().numpy())
    others = np.roll(shapes, -1)
    inter = shapely.area(shapely.intersection(shapes, others))
    return inter / (shapely.area(shapes) + shapely.area(others) - inter)
