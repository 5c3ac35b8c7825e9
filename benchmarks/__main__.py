"""Run benchmarks and print one table: ``python -m benchmarks [pairing] [loss] [...] [--threads N]``; see NAMES."""

from __future__ import annotations

import argparse
import importlib
import os
import platform

# Before PyTorch starts its threads: threads that spin while they wait slow each other down when others run too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks import measure

NAMES = ("pairing", "loss", "solve", "closed_form", "nearest", "empirical", "ensemble", "unet")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which ones, of {', '.join(NAMES)}; all by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch, for both sides")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}: choose from {', '.join(NAMES)}")
    torch.set_num_threads(arguments.threads)
    print(measure.busy(), end="")
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads", flush=True)
    measure.watchers.append(lambda row: print(row.line, flush=True))
    names = arguments.names or list(NAMES)
    rows = []
    for number, name in enumerate(names, 1):
        print(f"\n{number} of {len(names)}: {name}, left: {', '.join(names[number:]) or 'nothing'}", flush=True)
        rows += importlib.import_module(f"benchmarks.{name}").run()
    print(f"\n{measure.table(rows)}")


if __name__ == "__main__":
    main()
