"""Solving the flow as fmcore, as Meta's ODESolver, and by torchdiffeq itself, as TorchCFM's examples do."""

from __future__ import annotations

import torch

from benchmarks.measure import Row, installed, speed
from fmcore import networks, solvers

# Our method, theirs, steps (None: adaptive).
METHODS = (("euler", "euler", 100), ("midpoint", "midpoint", 50), ("heun", "heun2", 50), ("dopri5", "dopri5", None))


def run() -> list[Row]:
    from torchdiffeq import odeint

    meta = installed("flow_matching")
    rows = []
    for dim, width in ((2, 64), (784, 256)):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = networks.MLP(dim, width=width).requires_grad_(False)
        for layer in model.layers:  # as large as weights of a trained model: dopri5 then takes dozens of evaluations
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(3)
        x0 = torch.randn(256, dim, generator=torch.Generator().manual_seed(dim))
        for method, name, steps in METHODS:

            def ours(method=method, steps=steps, model=model, x0=x0) -> torch.Tensor:
                return solvers.solve(model, x0, method=method, steps=steps).x

            def direct(name=name, steps=steps, model=model, x0=x0) -> torch.Tensor:
                grid = torch.linspace(0, 1, 2 if steps is None else steps + 1)
                with torch.no_grad():
                    return odeint(lambda t, x: model(x, t), x0, grid, rtol=1e-5, atol=1e-5, method=name)[-1]

            peers = [("torchdiffeq", direct)]
            if meta:
                from flow_matching.solver import ODESolver

                solver = ODESolver(velocity_model=model)

                def sampled(solver=solver, name=name, steps=steps, x0=x0) -> torch.Tensor:
                    size = None if steps is None else 1 / steps
                    return solver.sample(x_init=x0, step_size=size, method=name, rtol=1e-5, atol=1e-5)

                peers.append(("Meta ODESolver", sampled))
            for peer, theirs in peers:
                difference = f"ends differ by {float((ours() - theirs()).abs().max()):.0e}"
                what = f"solve, {method}{f' {steps} steps' if steps else ''}, MLP, 256 x {dim}"
                repetitions = 60 if dim == 2 else 15
                rows.append(Row(what, peer, *speed(ours, theirs, repetitions), "as fast", difference))
    return rows
