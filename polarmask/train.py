"""``python -m polarmask.train --config NAME``: trains, evaluates, and keeps weights, metrics and pictures."""

from .trainer import main

if __name__ == "__main__":
    main()
