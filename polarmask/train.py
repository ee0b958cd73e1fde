"""``python -m polarmask.train`` runs ``polarmask train``; imported, this module is replaced by the function."""

import sys

import polarmask

if __name__ == "__main__":
    from polarmask.cli import main

    main(["train", *sys.argv[1:]])

sys.modules[__name__] = polarmask.train  # type: ignore[assignment]  # the import binds it to the name polarmask.train
