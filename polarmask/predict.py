"""``python -m polarmask.predict --weights FILE IMAGES --out FOLDER``: instances of any images."""

from .prediction import main

if __name__ == "__main__":
    main()
