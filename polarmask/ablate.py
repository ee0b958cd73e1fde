"""``python -m polarmask.ablate`` runs ``polarmask ablate``; imported, this module is replaced by the function."""

import sys

import polarmask

if __name__ == "__main__":
    from polarmask.cli import main

    main(["ablate", *sys.argv[1:]])

sys.modules[__name__] = polarmask.ablate  # type: ignore[assignment]  # the import binds it to the name polarmask.ablate
