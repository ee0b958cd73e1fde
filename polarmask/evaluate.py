"""``python -m polarmask.evaluate`` runs ``polarmask evaluate``; imported, this module is replaced by the function."""

import sys

import polarmask

if __name__ == "__main__":
    from polarmask.cli import main

    main(["evaluate", *sys.argv[1:]])

sys.modules[__name__] = polarmask.evaluate  # type: ignore[assignment]  # the import binds it to the name polarmask.evaluate
