"""``python -m fmcore`` is the ``fmcore`` command."""

from fmcore.cli import main

if __name__ == "__main__":
    main()
