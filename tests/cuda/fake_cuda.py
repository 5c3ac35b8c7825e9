"""Run the package on a GPU that is not there, and count graphs and waits; see README.md.

python -m tests.cuda.fake_cuda [WORD ...]: all checks, or those that have one of the words in their name.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch import Tensor

from tests.cuda import stub

if __name__ == "__main__":
    stub.restarted("tests.cuda.fake_cuda")

from fmcore import closed_form, couplings, guidance, likelihood, losses, networks, paths, solvers, sources
from fmcore.data.images import ImageData, dequantize
from fmcore.experiments.config.experiment import Configuration, EvaluationConfig
from fmcore.experiments.evaluate import bits_per_dim
from fmcore.experiments.run import samples
from fmcore.experiments.run.training_batch import batch_loss, batch_maker, training_rows
from fmcore.guidance import guided
from fmcore.metrics import features, memorization
from fmcore.metrics.classifier import TrainedClassifier, train_classifier
from fmcore.training import TrainingConfig, feeding, train
from tests.cuda.fake_device import FakeGPU
from tests.cuda.graphs import graph_checks

Check = Callable[[FakeGPU], str | None]
GPU = torch.device("cuda:0")
PATHS = (paths.rectified(), paths.ot(0.1), paths.variance_preserving(), paths.variance_exploding(), paths.cosine())
SHAPE, COLOURS = (1, 8, 8), (3, 8, 8)
LOSSES = ("conditional_flow_matching", "noise_prediction", "score_matching", "score_flow")
CHECKS: dict[str, Check] = {}


def check(name: str) -> Callable[[Check], Check]:
    def add(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return add


def unet(shape: tuple[int, int, int] = SHAPE, **options: Any) -> networks.UNet:
    return networks.UNet(shape, 8, (1, 2), 1, (4,), heads=2, **options).to(GPU)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, device=GPU)


def chance() -> torch.Generator:
    return torch.Generator(GPU).manual_seed(0)


def images(count: int = 100, held_out: int = 20, levels: int = 256) -> ImageData:
    g = torch.Generator().manual_seed(0)

    def draw(n: int) -> Tensor:
        return torch.randint(0, levels, (n, *SHAPE), generator=g, dtype=torch.uint8)

    def labels(n: int) -> Tensor:
        return torch.randint(0, 10, (n,), generator=g)

    classes = tuple("0123456789")
    return ImageData("noise", draw(count), draw(held_out), labels(count), labels(held_out), levels, classes)


def configuration(**settings: Any) -> Configuration:
    return Configuration("check", "digits", **settings)


def expect(found: Tensor, *shape: int) -> None:
    """Raise AssertionError unless a result has this shape and is on the device."""
    assert tuple(found.shape) == shape, f"shape {tuple(found.shape)} instead of {shape}"
    assert found.device == GPU, f"a result on {found.device}"


# Training


def trained(gpu: FakeGPU, experiment: Configuration, ahead: int = 0, levels: int = 256, **settings: Any) -> None:
    """The training step of an experiment; the thread that prepares batches sees the same device."""
    data = images(levels=levels)
    with patch.object(feeding, "prefetch_pairs", gpu.prefetch_pairs):
        train(
            unet(dropout=0.1, num_classes=10 if experiment.labels else None),
            batch_loss(experiment, data, data.train),
            training_rows(experiment, data, data.train),
            TrainingConfig(**{"batch": 16, "checkpoint_every": 1000, "clip": 0.5, **settings}),
            progress=False,
            prepare=batch_maker(experiment, data),
            ahead=ahead,
        )


def steps_of(**settings: Any) -> Check:
    def run(gpu: FakeGPU) -> None:
        experiment = settings.get("experiment") or configuration()
        others = {name: value for name, value in settings.items() if name not in ("experiment", "resident")}
        with patch.object(feeding, "RESIDENT_SHARE", 0.25 if settings.get("resident", True) else -1.0):
            trained(gpu, experiment, **{"ahead": 1, "steps": 3, **others})

    return run


FAST = {"precision": "bf16", "channels_last": True, "accumulate": 2}
OT = configuration(coupling="minibatch_ot", flips=True)
EMPIRICAL = configuration(loss="empirical_flow_matching", bank=8)
CHECKS["train: independent pairs, float32"] = steps_of()
CHECKS["train: bf16, channels_last, accumulate=2, 22 steps"] = steps_of(**FAST, steps=22)
CHECKS["train: the same, data not resident"] = steps_of(**FAST, resident=False)
CHECKS["train: the same, without a thread"] = steps_of(**FAST, ahead=0)
CHECKS["train: mini-batch transport, flips"] = steps_of(experiment=OT, **FAST)
CHECKS["train: mini-batch transport in blocks"] = steps_of(experiment=OT, **FAST, coupling_batch=8)
CHECKS["train: labels, logit-normal times"] = steps_of(
    experiment=configuration(labels=True, times="logit_normal", times_uniform=0.5, coupling="minibatch_ot"), **FAST
)
CHECKS["train: nearest noise, data prediction"] = steps_of(
    experiment=configuration(coupling="nearest_noise", loss="data_prediction"), **FAST, weight_decay=0.01
)
CHECKS["train: empirical flow matching"] = steps_of(experiment=EMPIRICAL, **FAST)
CHECKS["train: empirical flow matching, not resident"] = steps_of(experiment=EMPIRICAL, **FAST, resident=False)


@check("train: classifier")
def _(gpu: FakeGPU) -> None:
    with patch.object(feeding, "prefetch_pairs", gpu.prefetch_pairs):
        train_classifier(images(), steps=22, device=GPU)


@check("waits in one step of training")
def _(gpu: FakeGPU) -> str:
    """The difference of a longer and a shorter run, both too short for the reading of losses."""
    lines = []
    for name, run in {
        "independent pairs": lambda steps: trained(gpu, configuration(), steps=steps),
        "independent pairs, accumulate=2": lambda steps: trained(gpu, configuration(), steps=steps, **FAST),
        "independent pairs, 17 levels": lambda steps: trained(gpu, configuration(), steps=steps, levels=17),
        "mini-batch transport": lambda steps: trained(gpu, OT, steps=steps),
        "empirical flow matching": lambda steps: trained(gpu, EMPIRICAL, steps=steps),
        "empirical flow matching, 17 levels": lambda steps: trained(gpu, EMPIRICAL, steps=steps, levels=17),
        "classifier": lambda steps: classifier_steps(images(), steps),
        "classifier, 17 levels": lambda steps: classifier_steps(images(levels=17), steps),
    }.items():
        found = [waits_of(gpu, lambda run=run, steps=steps: run(steps)) for steps in (1, 3)]
        lines += [f"{name}:", *spelled({key: count / 2 for key, count in (found[1] - found[0]).items()})]
    return "\n".join(lines)


def classifier_steps(data: ImageData, steps: int) -> None:
    def without_thread(*arguments: Any, **settings: Any) -> Any:
        return train(*arguments, **{**settings, "ahead": 0})

    with patch("fmcore.metrics.classifier.train", without_thread):
        train_classifier(data, steps=steps, device=GPU)


def waits_of(gpu: FakeGPU, run: Callable[[], Any]) -> Counter[tuple[str, str, str]]:
    gpu.waits.clear()
    run()
    return Counter(gpu.waits)


def spelled(waits: dict[tuple[str, str, str], float]) -> list[str]:
    return [
        f"    {count:g} {kind}, {place}{f' (thread {thread})' if thread else ''}"
        for (kind, place, thread), count in sorted(waits.items())
        if count
    ] or ["    none"]


# Losses, couplings, sources


def loss_checks() -> None:
    for path in PATHS:
        for name in LOSSES:

            def run(gpu: FakeGPU, path: Any = path, name: str = name) -> None:
                loss = getattr(losses, name)(unet(), path, normal(6, *SHAPE), normal(6, *SHAPE), generator=chance())
                expect(loss)
                loss.backward()

            CHECKS[f"loss: {name}, {path.name}"] = run

        def empirical(gpu: FakeGPU, path: Any = path) -> None:
            x0, x1, exclude = normal(6, *SHAPE), normal(6, *SHAPE), torch.zeros(6, 4, dtype=torch.bool, device=GPU)
            for bank in (normal(4, *SHAPE), normal(6, 4, *SHAPE)):
                loss = losses.empirical_flow_matching(unet(), path, x0, x1, bank, generator=chance(), exclude=exclude)
                expect(loss)
                loss.backward()
            exact = closed_form.EmpiricalVelocity(normal(30, *SHAPE), path)
            losses.exact_flow_matching(unet(), path, x0, x1, exact, generator=chance()).backward()

        CHECKS[f"loss: empirical_flow_matching and exact_flow_matching, {path.name}"] = empirical


loss_checks()


@check("coupling: exact, with labels")
def _(gpu: FakeGPU) -> None:
    labels = torch.randint(0, 3, (12,), device=GPU)
    for given in (labels, None):
        x0, _ = couplings.MinibatchOT()(normal(12, *SHAPE), normal(12, *SHAPE), given, chance())
        expect(x0, 12, *SHAPE)


@check("coupling: Sinkhorn")
def _(gpu: FakeGPU) -> None:
    x0, _ = couplings.MinibatchOT("sinkhorn", 1.0)(normal(12, *SHAPE), normal(12, *SHAPE), generator=chance())
    expect(x0, 12, *SHAPE)


@check("coupling: pairs of a flow")
def _(gpu: FakeGPU) -> None:
    model = unet().eval()
    pairs = couplings.reflow(lambda x0: solvers.solve(model, x0, method="euler", steps=2).x, normal(8, *SHAPE), 4)
    expect(pairs.sample(5, chance())[0], 5, *SHAPE)


def source_checks() -> None:
    data = torch.randn(200, *COLOURS, generator=torch.Generator().manual_seed(0))
    dim = data[0].numel()
    eye = torch.eye(dim)[:4]
    ends = torch.tensor([True, True, False, False])
    pruning = sources.PruningAxes(eye, ends, ends.flip(0))
    kept = torch.ones(3, 8, 8, dtype=torch.bool)
    model = networks.MLP(dim)
    components = torch.full((2,), 0.5), torch.zeros(2, dim), torch.eye(dim).repeat(2, 1, 1)
    for name, source in {
        "Gaussian": sources.Gaussian(COLOURS),
        "ChiSphere": sources.ChiSphere(COLOURS),
        "VonMisesFisher": sources.VonMisesFisher(data[:5], 50.0, torch.ones(5)),
        "VonMisesFisher, its mean directions": sources.VonMisesFisher(data[:5], torch.inf),
        "AroundPoints": sources.AroundPoints(data, 50.0),
        "GaussianMixture": sources.GaussianMixture(COLOURS, *components),
        "DCT": sources.DCT(COLOURS, kept),
        "FlowSource": sources.FlowSource(
            sources.Gaussian(COLOURS), lambda x: solvers.solve(model.to(x.device), x, method="midpoint", steps=2).x
        ),
        "NormAligned": sources.NormAligned(sources.Gaussian(COLOURS), 10.0),
        "Pruned": sources.Pruned(sources.Gaussian(COLOURS), pruning, 0.5),
    }.items():

        def run(gpu: FakeGPU, source: Any = source, name: str = name) -> None:
            expect(source.sample(6, chance()), 6, *COLOURS)
            expect(source.sample(6, device=GPU), 6, *COLOURS)
            if name not in ("AroundPoints", "FlowSource", "Pruned", "VonMisesFisher, its mean directions"):
                expect(source.log_prob(normal(6, *COLOURS)), 6)
            if name == "AroundPoints":
                expect(source.given(normal(6, *COLOURS), chance()), 6, *COLOURS)
            if name == "Pruned":
                expect(source.contains(normal(6, *COLOURS)), 6)

        CHECKS[f"source: {name}"] = run


source_checks()


# Closed forms, solvers, guidance, likelihood


def empirical_velocity(home: torch.device) -> None:
    data, x = torch.randn(300, *SHAPE, device=home), normal(6, *SHAPE)
    pixels = images().train.to(home)
    for velocity in (
        closed_form.EmpiricalVelocity(data),
        closed_form.EmpiricalVelocity(data, chunk_size=64),
        closed_form.EmpiricalVelocity(pixels, scale=images().scaled),
    ):
        expect(velocity(x, torch.rand(6, device=GPU)), 6, *SHAPE)
        expect(velocity(x.double(), 0.5), 6, *SHAPE)
        expect(velocity.weights(x, 0.5), 6, len(velocity.data))
        velocity(x.clone().requires_grad_(True), 0.5).sum().backward()


@check("exact velocity, data on the device")
def _(gpu: FakeGPU) -> None:
    gpu.truth = False  # no weight needs float64
    with patch("fmcore.closed_form.empirical.check_finite"):  # which asks, and would be told no
        exact = closed_form.EmpiricalVelocity(normal(300, *SHAPE))
    expect(exact(normal(6, *SHAPE), 0.1), 6, *SHAPE)
    gpu.truth = True
    empirical_velocity(GPU)


@check("exact velocity, data on the host")
def _(gpu: FakeGPU) -> None:
    empirical_velocity(torch.device("cpu"))


@check("hybrid velocity")
def _(gpu: FakeGPU) -> None:
    x, model = normal(6, *SHAPE), unet().eval()
    exact = closed_form.EmpiricalVelocity(normal(30, *SHAPE))
    expect(closed_form.HybridVelocity(exact, model, 0.5)(x, torch.tensor(0.2)), 6, *SHAPE)
    # Both kinds of times in one batch: a made-up mask does not say which.
    early, late = torch.arange(3, device=GPU)[:, None], torch.arange(3, 6, device=GPU)[:, None]
    with (
        patch.object(Tensor, "all", lambda _: torch.tensor(False)),
        patch.object(Tensor, "nonzero", Mock(side_effect=[early, late])),
        patch.object(Tensor, "sum", lambda _: torch.tensor(3)),
    ):
        expect(closed_form.HybridVelocity(model, model, 0.5)(x, torch.rand(6, device=GPU)), 6, *SHAPE)


def solve_checks() -> None:
    for method, steps in (("euler", 4), ("midpoint", 4), ("heun", 4), ("rk4", 4)):

        def run(gpu: FakeGPU, method: str = method, steps: int = steps) -> None:
            model = unet().eval().to(memory_format=torch.channels_last)
            x0 = normal(6, *SHAPE).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cuda", torch.bfloat16):
                expect(solvers.solve(model, x0, method=method, steps=steps).x, 6, *SHAPE)
            found = solvers.solve(model, x0, method=method, times=[0.0, 0.3, 1.0])
            assert found.trajectory is not None
            expect(found.trajectory, 3, 6, *SHAPE)

        CHECKS[f"solve: {method}, samples of the U-Net"] = run


solve_checks()


@check("waits in one step of a solver")
def _(gpu: FakeGPU) -> str:
    model, x0, lines = unet().eval(), normal(6, *SHAPE), []
    path = paths.variance_preserving()

    def by(method: str, calls: int) -> Callable[[int], Any]:
        def run(steps: int) -> Any:
            # The solver asks in each step whether it has arrived; it has after the last call of the velocity.
            seen = iter([False] * (calls * steps - 1) + [True])

            def velocity(x: Tensor, t: Tensor) -> Tensor:
                gpu.truth = next(seen)
                return model(x, t)

            return solvers.solve(velocity, x0, method=method, steps=steps)

        return run

    def stochastic(steps: int) -> Any:
        return solvers.solve_sde(model, path, x0, steps=steps, generator=chance())

    for name, run in {"euler": by("euler", 1), "heun": by("heun", 2), "solve_sde": stochastic}.items():
        found = [waits_of(gpu, lambda run=run, steps=steps: run(steps)) for steps in (2, 4)]
        lines += [f"{name}:", *spelled({key: count / 2 for key, count in (found[1] - found[0]).items()})]
    return "\n".join(lines)


@check("solve: the stochastic equation")
def _(gpu: FakeGPU) -> None:
    for path, start in ((paths.variance_preserving(), 0.0), (paths.rectified(), 0.01)):
        found = solvers.solve_sde(unet().eval(), path, normal(6, *SHAPE), start, steps=4, generator=chance())
        expect(found.x, 6, *SHAPE)
        back = solvers.solve_sde(
            unet().eval(), path, normal(6, *SHAPE), path.t_max, start or 0.1, 4, times=[start or 0.1]
        )
        expect(back.x, 6, *SHAPE)


@check("guidance")
def _(gpu: FakeGPU) -> None:
    model = unet(num_classes=10).eval()
    labels = torch.arange(6)
    for scale in (0.0, 1.0, 1.5):
        for given in (labels, labels.to(GPU)):
            velocity = guidance.guided(model, given, scale)
            expect(solvers.solve(velocity, normal(6, *SHAPE), method="euler", steps=2).x, 6, *SHAPE)
    dropped = guidance.drop_labels(labels.to(GPU), 0.2, 10, chance())
    model(normal(6, *SHAPE), torch.rand(6, device=GPU), dropped).sum().backward()


@check("likelihood: Hutchinson, Euler")
def _(gpu: FakeGPU) -> None:
    for probes in (1, 3):
        found = likelihood.log_likelihood(
            unet().eval().requires_grad_(False),
            normal(6, *SHAPE),
            sources.Gaussian(SHAPE),
            "hutchinson",
            probes,
            method="euler",
            steps=3,
            generator=chance(),
        )
        expect(found.log_prob, 6)


@check("likelihood: exact, Euler")
def _(gpu: FakeGPU) -> None:
    model = networks.MLP(2).to(GPU)
    found = likelihood.log_likelihood(model, normal(6, 2), sources.Gaussian((2,)), method="euler", steps=3)
    expect(found.log_prob, 6)


# What a run measures


def finished_run(labels: bool = False) -> Any:
    """As much of a run as samples and densities need."""
    data, path = images(), paths.rectified()
    model = unet(num_classes=10 if labels else None).eval().requires_grad_(False)
    evaluation = EvaluationConfig(solver_batch=6, draws=2, probe_repeats=2)

    def given(labels: Tensor, guidance: float = 2.0) -> Any:
        return guided(model, labels, guidance)

    def sample(n: int, generator: torch.Generator, source: Any = None, variant: Any = None, labels: Any = None) -> Any:
        x0 = sources.Gaussian(SHAPE).sample(n, generator).to(GPU)
        velocity = model if labels is None else given(labels)
        return solvers.solve(velocity, x0, t1=path.t_max, method="euler", steps=2)

    return SimpleNamespace(
        configuration=SimpleNamespace(evaluation=evaluation, labels=labels),
        data=data,
        path=path,
        device=GPU,
        source=sources.Gaussian(SHAPE),
        velocity=model,
        sample=sample,
        given=given,
        draw_labels=lambda n, generator: torch.arange(n) % 10 if labels else None,
    )


@check("evaluation: samples and densities")
def _(gpu: FakeGPU) -> None:
    run = finished_run()
    assert samples.samples(run, 14).images.device.type == "cpu"

    def by_euler(*arguments: Any, **named: Any) -> Any:
        return likelihood.log_likelihood(*arguments, **{**named, "method": "euler", "steps": 2})

    with patch.object(bits_per_dim, "log_likelihood", by_euler):
        assert bits_per_dim.densities(run, run.data.held_out).draws.shape == (2, 20)


@check("evaluation: samples by class, guided, and densities given the class")
def _(gpu: FakeGPU) -> None:
    run = finished_run(labels=True)
    assert samples.samples(run, 14).labels.device.type == "cpu"

    def by_euler(*arguments: Any, **named: Any) -> Any:
        return likelihood.log_likelihood(*arguments, **{**named, "method": "euler", "steps": 2})

    with patch.object(bits_per_dim, "log_likelihood", by_euler):
        found = bits_per_dim.densities(run, run.data.held_out, run.data.held_out_labels)
    assert found.draws.shape == (2, 20)


@check("solve: the stochastic equation with a bounded diffusion")
def _(gpu: FakeGPU) -> None:
    path = paths.rectified()
    noise = chance()
    expect(
        solvers.solve_sde(
            unet().eval(), path, normal(4, *SHAPE), steps=3, generator=noise, diffusion=solvers.bounded_diffusion(path)
        ).x,
        4,
        *SHAPE,
    )


@check("evaluation: features of a classifier")
def _(gpu: FakeGPU) -> None:
    data = images()
    classifier, _ = train_classifier(data, steps=1, device=GPU)
    space = features.classifier_space(TrainedClassifier(classifier.eval(), 1.0, 1, 0), data, GPU)
    assert features.moments(space, data.train).mean.device.type == "cpu"


@check("evaluation: nearest training images")
def _(gpu: FakeGPU) -> None:
    data = images()
    for train_on in (data.train, data.train.to(GPU)):
        with patch("fmcore.metrics.memorization.Tensor.ge", lambda self, _: torch.ones(self.shape, dtype=torch.bool)):
            found = memorization.nearest_training_images(data.scaled(data.held_out).to(GPU), train_on, data.scaled)
        expect(found.distance, 20, 2)


@check("evaluation: pixels of samples")
def _(gpu: FakeGPU) -> None:
    expect(dequantize(images().train.to(GPU), 256, chance()), 100, *SHAPE)


def main(words: list[str]) -> int:
    failures, began = 0, time.perf_counter()
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    for name, run in {**CHECKS, **graph_checks()}.items():
        if words and not any(word in name for word in words):
            continue
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if name.startswith("graphs"):
                    said = run(None)
                else:
                    torch.manual_seed(0)
                    with FakeGPU() as gpu:
                        said = run(gpu)
            result = "ok"
        except Exception as error:
            failures, said = failures + 1, None
            result = f"FAILED: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            if "--trace" in sys.argv:
                import traceback

                traceback.print_exc()
        print(f"{name:75} {time.perf_counter() - started:5.1f} s  {result}", flush=True)
        if said:
            print("\n".join("    " + line for line in said.splitlines()), flush=True)
    print(f"{failures} failed, {time.perf_counter() - began:.0f} s")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main([word for word in sys.argv[1:] if not word.startswith("--")]))
