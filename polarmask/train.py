"""``python -m polarmask.train --config NAME``: trains, evaluates, and keeps weights, metrics and pictures."""

import sys

from .command import Program, run

if __name__ == "__main__":
    run("trainer")
else:
    sys.modules[__name__].__class__ = Program
