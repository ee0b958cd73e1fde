"""What is wrong with a data set, and what rays can make of it: before anything is trained."""

from .collect import RAYS, Audit, ClassAudit, Suggestion, audit, suggest

__all__ = ["RAYS", "Audit", "ClassAudit", "Suggestion", "audit", "suggest"]
