"""pycocotools' run lengths of bitmaps."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import Scene
from pycocotools import mask as coco


def encode(scene: Scene) -> list[dict[str, Any]]:
    """Encode all bitmaps in one call; pycocotools reads them column by column, (H, W, N)."""
    return coco.encode(np.asfortranarray(scene.masks.numpy().view(np.uint8).transpose(1, 2, 0)))
