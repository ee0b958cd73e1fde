"""``python -m polarmask.audit PATH``: looks at a data set; the exit status says whether training may start."""

from ..command import run

run("audit.report")
