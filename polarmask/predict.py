"""``python -m polarmask.predict`` runs ``polarmask predict``; imported, this module is replaced by the function."""

import sys

import polarmask

if __name__ == "__main__":
    from polarmask.cli import main

    main(["predict", *sys.argv[1:]])

sys.modules[__name__] = polarmask.predict  # type: ignore[assignment]  # the import binds it to the name polarmask.predict
