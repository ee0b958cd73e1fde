"""``python -m polarmask.evaluate --weights FILE``: mask and box AP of a detector."""

import sys

from .command import Program, run

if __name__ == "__main__":
    run("evaluation")
else:
    sys.modules[__name__].__class__ = Program
