"""``python -m polarmask.evaluate --weights FILE``: mask and box AP of a detector."""

from .evaluation import main

if __name__ == "__main__":
    main()
