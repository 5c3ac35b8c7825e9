"""The command line of a visit: ``python -m benchmarks.gpu --minutes 8 --data FOLDER --out FOLDER``; see --help."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Before PyTorch starts its threads: threads that spin while they wait slow each other down when others run too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and make the visit; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="One visit to a GPU.")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training; 0 ends after the warm-up")
    parser.add_argument("--data", type=Path, help="folder that holds cifar-10-batches-bin")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="the folder to leave")
    parser.add_argument("--parts", default="checks,speed,train", help="what to do, separated by commas")
    parser.add_argument("--limit", type=float, help="seconds after which the visit ends with what it has")
    options = parser.parse_args(arguments)
    try:
        import numpy  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        parser.error(f"{error.name} is missing: install PyTorch for this GPU first")
    from benchmarks.gpu import visit

    parts = options.parts.split(",")
    unknown = sorted({*parts} - {*visit.PARTS})
    if unknown or options.minutes < 0:
        parser.error(f"--parts are {', '.join(visit.PARTS)}, and --minutes at least 0")
    return visit.run(options.minutes, options.data, options.out, parts, options.limit)


if __name__ == "__main__":
    sys.exit(main())
