"""``fmcore`` and ``python -m fmcore``: the command line, and a sentence for whoever stops it while it is loaded."""

import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        from fmcore import cli
    except KeyboardInterrupt:
        print("stopped (Ctrl-C): nothing was kept; run the same command again", file=sys.stderr)
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
