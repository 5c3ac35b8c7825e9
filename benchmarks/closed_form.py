"""The closed-form velocity against the least it needs: two matrix products, and the memory of its data.

``python -m benchmarks.closed_form N D`` prints the peak memory of one evaluation over that of its data; it has to be a
process of its own, because a peak never falls.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import Row, speed
from fmcore.closed_form import EmpiricalVelocity

POINTS, DIM, QUERIES, MORE_QUERIES = 50_000, 3072, 256, 1024


def problem(n: int, dim: int) -> tuple[Tensor, torch.Generator]:
    g = torch.Generator().manual_seed(0)
    return torch.empty(n, dim).uniform_(-1, 1, generator=g), g


def queries(data: Tensor, t: Tensor, g: torch.Generator) -> Tensor:
    """Points x_t = t x1 + (1 - t) x0 on the way to random data points."""
    x1 = data[torch.randint(len(data), (len(t),), generator=g)]
    return t[:, None] * x1 + (1 - t[:, None]) * torch.randn(x1.shape, generator=g)


def peak() -> int:
    """Return the most memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; ru_maxrss would count the process that started this one
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_over_data(n: int, dim: int) -> float:
    before = peak()
    data, g = problem(n, dim)
    t = torch.rand(QUERIES, generator=g)
    EmpiricalVelocity(data)(queries(data, t, g), t)
    return (peak() - before) / (data.numel() * data.element_size())


def run() -> list[Row]:
    data, g = problem(POINTS, DIM)
    u = EmpiricalVelocity(data)
    rows: list[Row] = []
    for name, t, repetitions in (
        ("t = 0.1", torch.full((QUERIES,), 0.1), 7),
        ("t = 0.95", torch.full((QUERIES,), 0.95), 7),
        ("random t", torch.rand(QUERIES, generator=g), 7),
        ("random t", torch.rand(MORE_QUERIES, generator=g), 3),
    ):
        x, size = queries(data, t, g), f"{len(t)} queries, {POINTS} x {DIM}"
        weights = torch.softmax(torch.randn(len(t), POINTS, generator=g), dim=1)
        timed = speed(lambda x=x, t=t: u(x, t), lambda x=x, w=weights: (x @ data.T, w @ data), repetitions)
        late = EmpiricalVelocity(data.double())(x[:32].double(), t[:32].double())
        error = (u(x[:32], t[:32]) - late).norm(dim=1) / late.norm(dim=1)
        difference = f"differs from float64 by {float(error.max()):.0e}"
        goal = "at least 0.85" if len(t) == QUERIES else f"at least {0.9 * rows[-1].ratio:.2f}"  # within 10% of fewer
        rows.append(Row(f"EmpiricalVelocity, {size}, {name}", "its two matrix products", *timed, goal, difference))
    command = [sys.executable, "-m", "benchmarks.closed_form", str(POINTS), str(DIM)]
    ratio = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    size = f"{QUERIES} queries, {POINTS} x {DIM}"
    rows.append(Row(f"EmpiricalVelocity, {size}, peak memory", "its data", ratio, ratio, ratio, "at most 1.3"))
    return rows


if __name__ == "__main__":
    print(peak_over_data(int(sys.argv[1]), int(sys.argv[2])))
