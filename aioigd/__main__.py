"""``python -m aioigd``: the same as the command ``aioigd``."""

from .cli import main

if __name__ == "__main__":
    main()
