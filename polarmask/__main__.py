"""``python -m polarmask`` is the same as the console script ``polarmask``."""

from .cli import main

main()
