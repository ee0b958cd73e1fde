"""``python -m polarmask.predict --weights FILE IMAGES --out FOLDER``: instances of any images."""

import sys

from .command import Program, run

if __name__ == "__main__":
    run("prediction")
else:
    sys.modules[__name__].__class__ = Program
