"""The device against the CPU: each check raises where the device is wrong, and returns what it measured.

What is random is drawn on the CPU and moved, so that both sides compute the same thing. Float32 without TF32 agrees to
some 1e-5; bounds are ten times what rounding explains.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fmcore import closed_form, couplings, likelihood, losses, networks, paths, solvers, sources, training
from fmcore.data.images import dequantize
from fmcore.training.device import matmul_precision

Found = dict[str, float]
SHAPE = (3, 8, 8)


def network() -> networks.UNet:
    """A small U-Net with weights that are not zero, the same on every call."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = networks.UNet(SHAPE, channels=32, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=32)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
    return model


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative(found: Tensor, expected: Tensor) -> float:
    """|| found - expected || / || expected ||, in float64 on the CPU."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    return float((found - expected).norm() / expected.norm())


def close(found: Tensor, expected: Tensor, bound: float) -> float:
    """The relative difference, which must be below a bound."""
    difference = relative(found, expected)
    assert difference < bound, f"differs by {difference:.1e}, at most {bound:.0e} is rounding"
    return difference


def bfloat16_product(device: torch.device) -> Found:
    """A large product in bfloat16 against float64, and how fast it is."""
    size = 8192 if device.type == "cuda" else 256
    a = normal(size, size).to(device, torch.bfloat16)
    few = a[:64].double().cpu() @ a.double().cpu()
    difference = close((a @ a)[:64], few, 5e-3)
    started = waited(device)
    for _ in range(20):
        a @ a
    seconds = waited(device) - started
    return {"difference": difference, "tflops": 20 * 2 * size**3 / seconds / 1e12}


def unet_and_gradient(device: torch.device) -> Found:
    """The U-Net and the gradient of its loss: float32 on both, then bfloat16 with the channels last."""
    ours, theirs = network(), network().to(device)
    x, t, u = normal(8, *SHAPE), torch.linspace(0, 1, 8), normal(8, *SHAPE, seed=1)

    def gradient(model: nn.Module, x: Tensor, bf16: bool = False) -> tuple[Tensor, Tensor]:
        model.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            v = model(x, t.to(x.device))
        (v.float() - u.to(x.device)).square().mean().backward()
        return v, torch.cat([weight.grad.flatten() for weight in model.parameters()])  # type: ignore[union-attr]

    v, g = gradient(ours, x)
    on_device = gradient(theirs, x.to(device))
    found = {"velocity": close(on_device[0], v, 1e-4), "gradient": close(on_device[1], g, 1e-3)}
    theirs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = gradient(theirs, x.to(device).contiguous(memory_format=torch.channels_last), bf16=True)
    return found | {"velocity, bf16": close(half[0], v, 0.05), "gradient, bf16": close(half[1], g, 0.2)}


def training_and_resuming(device: torch.device) -> Found:
    """Steps with streams, pinned memory and a thread that prepares; then the same with a stop in between."""
    images = torch.randint(0, 256, (256, *SHAPE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    path = paths.rectified()

    def prepare(batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x1 = dequantize(training.random_flips(batch, generator), 256, generator)
        x0 = torch.randn(x1.shape, generator=generator, device=x1.device)
        return couplings.MinibatchOT()(x0, x1)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        return losses.conditional_flow_matching(model, path, *batch, generator=generator)

    def trained(folder: Path, **stop: int) -> training.Trained:
        config = training.TrainingConfig(
            steps=12, batch=32, warmup=4, accumulate=2, precision="bf16", channels_last=True, checkpoint_every=6
        )
        file = folder / "checkpoint.pt"
        model = network().to(device)
        if stop:
            try:
                training.train(model, failing(loss, 2 * 8), images, config, file, progress=False, prepare=prepare)
            except InterruptedError:
                model = network().to(device)
        return training.train(model, loss, images, config, file, resume=bool(stop), progress=False, prepare=prepare)

    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        whole, parts = trained(Path(first)), trained(Path(second), stop=1)
    weights = [torch.cat([w.flatten() for w in run.ema.parameters()]) for run in (whole, parts)]
    moved = relative(weights[0], torch.cat([w.flatten() for w in network().parameters()]))
    # A GPU promises no order of sums: additions are atomic, and the fastest convolution may be another one. The first
    # steps of Adam make much of it. A resume that lost something differs by about as much as the weights have moved.
    bound = 0.1 * moved if device.type == "cuda" else 1e-7
    assert moved > 1e-4, "the weights have not moved"
    return {
        "after a resume": close(weights[1], weights[0], bound),
        "moved": moved,
        "images per second": whole.images_per_second,
    }


def failing(loss: Callable[..., Tensor], calls: int) -> Callable[..., Tensor]:
    """The loss, which breaks the training off at a call."""
    made = 0

    def broken(*arguments: object) -> Tensor:
        nonlocal made
        made += 1
        if made > calls:
            raise InterruptedError
        return loss(*arguments)

    return broken


def solving(device: torch.device) -> Found:
    """Fixed steps, adaptive steps and the SDE."""
    ours, theirs = network().eval().requires_grad_(False), network().to(device).eval().requires_grad_(False)
    x0 = normal(4, *SHAPE)
    found = {}
    for method, steps in (("euler", 8), ("heun", 8), ("dopri5", None)):
        expected = solvers.solve(ours, x0, method=method, steps=steps, rtol=1e-4, atol=1e-4)
        solution = solvers.solve(theirs, x0.to(device), method=method, steps=steps, rtol=1e-4, atol=1e-4)
        found[method] = close(solution.x, expected.x, 1e-3)
        assert solution.nfe == expected.nfe or method == "dopri5", f"{method}: NFE {solution.nfe}, not {expected.nfe}"
    path = paths.variance_preserving()
    x = solvers.solve_sde(theirs, path, x0.to(device), steps=8, generator=torch.Generator(device).manual_seed(0)).x
    assert torch.isfinite(x).all()
    return found


def log_densities(device: torch.device) -> Found:
    """A Gaussian carried by a linear flow, whose density is known; then a divergence of the U-Net by three probes."""
    x1, source = normal(64, 6), sources.Gaussian((6,))
    exact = likelihood.log_likelihood(lambda x, t: 0.5 * x, x1.to(device), source).log_prob.cpu()
    known = torch.distributions.Normal(0, torch.tensor(0.5).exp()).log_prob(x1).sum(1)
    found = {"linear flow": close(exact, known, 1e-4)}
    x, t, signs = normal(4, *SHAPE), torch.full((4,), 0.5), normal(3, 4, *SHAPE, seed=1).sign()
    ours = likelihood.velocity_and_divergence(network().eval(), x, t, signs)[1]
    moved = (part.to(device) for part in (x, t, signs))
    theirs = likelihood.velocity_and_divergence(network().to(device).eval(), *moved)[1]
    return found | {"divergence of the U-Net": close(theirs, ours, 1e-3)}


def pairing(device: torch.device) -> Found:
    """Exact transport of a batch: the same permutation, and how long it keeps the host."""
    x0, x1 = normal(512, *SHAPE), normal(512, *SHAPE, seed=1)
    couple = couplings.MinibatchOT()
    expected = couple(x0, x1)[0]
    moved = x0.to(device), x1.to(device)
    started = waited(device)
    found = couple(*moved)[0]
    seconds = waited(device) - started
    same = float((found.cpu() == expected).flatten(1).all(1).float().mean())
    assert same > 0.99, f"{1 - same:.0%} of the pairs are others"
    return {"the same pairs": same, "milliseconds": 1000 * seconds}


def exact_velocity(device: torch.device) -> Found:
    """The closed form over 2,000 images, early and late, against float64 on the CPU."""
    data = normal(2000, *SHAPE).clamp(-1, 1)
    x, t = 0.4 * normal(16, *SHAPE, seed=1) + 0.6 * data[:16], torch.linspace(0, 0.95, 16)
    expected = closed_form.EmpiricalVelocity(data.double())(x.double(), t.double())
    return {
        "difference": close(closed_form.EmpiricalVelocity(data.to(device))(x.to(device), t.to(device)), expected, 1e-3)
    }


def waited(device: torch.device) -> float:
    """The time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


ALL: dict[str, Callable[[torch.device], Found]] = {
    check.__name__: check
    for check in (
        bfloat16_product,
        unet_and_gradient,
        training_and_resuming,
        solving,
        log_densities,
        pairing,
        exact_velocity,
    )
}


def run(device: torch.device, say: Callable[[dict], None]) -> bool:
    """Make every check, each in a try of its own; says one dictionary each. Returns whether all were right."""
    good = True
    for name, check in ALL.items():
        started = time.perf_counter()
        try:
            with matmul_precision("fp32", device):
                result: dict = {"check": name, "right": True, **check(device)}
        except Exception as error:
            result = {"check": name, "right": False, "error": f"{type(error).__name__}: {error}"[:500]}
        say(result | {"seconds": round(time.perf_counter() - started, 1)})
        good &= bool(result["right"])
    return good
