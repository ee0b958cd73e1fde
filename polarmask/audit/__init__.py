"""The audit: the problems of a data set and the IoU that rays can reach, before anything is trained."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .collect import RAYS, Audit, ClassAudit, Suggestion, audit, suggest

__all__ = ["RAYS", "Audit", "ClassAudit", "Suggestion", "audit", "suggest"]


def __getattr__(name: str) -> Any:
    # Imported when first used, as in polarmask/__init__.py: the program sets environment variables before torch.
    if name in __all__:
        return getattr(importlib.import_module(".collect", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
