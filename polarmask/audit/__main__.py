"""``python -m polarmask.audit PATH``: looks at a data set; the exit status says whether training may start."""

import sys

from .report import main

if __name__ == "__main__":
    sys.exit(main())
