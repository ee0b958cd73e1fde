"""``python -m polarmask.convert`` runs ``polarmask convert``; imported, this module is replaced by the function."""

import sys

import polarmask

if __name__ == "__main__":
    from polarmask.cli import main

    main(["convert", *sys.argv[1:]])

sys.modules[__name__] = polarmask.convert  # type: ignore[assignment]  # the import binds it to the name polarmask.convert
