"""``python -m polarmask.audit`` is the same as ``polarmask audit``."""

import sys

from ..cli import main

main(["audit", *sys.argv[1:]])
