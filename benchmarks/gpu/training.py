"""CIFAR-10 for so many minutes, and what came out, with everything written down as soon as it is there."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.gpu import step_speed
from fmcore.atomic import write_file
from fmcore.experiments import sealed
from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.evaluate.evaluation import evaluate_run
from fmcore.experiments.run import pretrained, same_data
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.identity import identity
from fmcore.experiments.run.train import train_run
from fmcore.experiments.run.training_batch import load_data
from fmcore.experiments.run.weights import keep_weights
from fmcore.metrics import features
from fmcore.papers.catalog import by_name
from fmcore.solvers import solve
from fmcore.training.device import matmul_precision

MOST_BYTES = 16 * 2**20  # of a file that is left


def configuration(minutes: float, data_dir: Path | None, tiny: bool) -> Configuration:
    """The experiment `cifar10_gpu` for so many minutes; for a rehearsal the digits, a small network, no compiler."""
    full = by_name("cifar10_gpu")
    if not tiny:
        place = None if data_dir is None else str(data_dir)
        return replace(full, data_dir=place, training=replace(full.training, minutes=minutes))
    training = replace(full.training, batch=8, warmup=8, checkpoint_every=4, compile=False, minutes=minutes)
    evaluation = replace(
        full.evaluation,
        solver_steps=2,
        solver_batch=40,
        sample_compile=False,
        set_images=40,
        likelihood_images=4,
        rtol=0.1,
        atol=0.1,
        classifier_steps=10,
        nearest_images=20,
    )
    return replace(full, data="digits", network=step_speed.TINY, training=training, evaluation=evaluation)


def run(config: Configuration, folder: Path, out: Path, say: Callable[[dict], None]) -> None:
    """Train in `folder`, measure, and leave weights, samples, losses and record in `out`.

    The averaged weights are left at every checkpoint, in bfloat16: whatever happens later, they are there.
    """

    def keep(step: int, averaged: nn.Module) -> None:
        rounded = {name: value.bfloat16() for name, value in averaged.state_dict().items()}
        keep_weights(rounded, out / "weights.safetensors", belongs_to, steps=step)
        say({"what": "weights left", "step": step, "bytes": checked(out / "weights.safetensors")})

    belongs_to = identity(config, same_data.fingerprint(load_data(config)))
    compiled_or_not(lambda config: train_run(config, folder, overwrite=folder.exists(), keep=keep), config, folder, say)
    write_file(out / "record.json", (folder / "record.json").read_bytes())
    shutil.copyfile(folder / "losses.csv", out / "losses.csv")
    thin(out / "losses.csv")
    run = Run(folder)
    adaptive = samples_by_dopri5(run)
    record = evaluate_run(run)
    record["evaluation"] |= adaptive
    sealed.write(folder / "record.json", record)
    leave(run, out)
    shutil.copyfile(folder / "samples.png", out / "samples.png")
    checked(out / "samples.png")
    say(
        {
            "what": "training and samples",
            "images per second": record["training"]["images_per_second"],
            "steps": record["training"]["steps"],
            "epochs": record["training"]["epochs"],
            "share of peak": step_speed.share_of_peak(
                record["training"]["images_per_second"],
                step_speed.flops_per_image(config.network, run.data.shape),
            ),
            **{
                f"{name}, {of}": found["value"] for name, rows in record["values"].items() for of, found in rows.items()
            },
            **adaptive,
        }
    )
    with_inception(run, folder, out, say)


def compiled_or_not(
    train: Callable[[Configuration], None], config: Configuration, folder: Path, say: Callable[[dict], None]
) -> None:
    """Train; once more without the compiler if it fails before the first checkpoint, so that a visit is not in vain."""
    try:
        train(config)
    except Exception as error:
        if not config.training.compile or (folder / "checkpoint.pt").exists():
            raise
        say({"what": "not compiled", "because": f"{type(error).__name__}: {error}"[:500]})
        plain = replace(config.evaluation, sample_compile=False)
        train(replace(config, training=replace(config.training, compile=False), evaluation=plain))


def samples_by_dopri5(run: Run) -> dict[str, Any]:
    """What an adaptive solver in float32 needs for a batch of samples, beside the fixed steps of the pictures."""
    settings = run.configuration.evaluation
    x0 = run.source.sample(settings.solver_batch, torch.Generator().manual_seed(0)).to(run.device)
    with matmul_precision("fp32", run.device):
        found = solve(run.velocity, x0, t1=run.path.t_max, rtol=settings.rtol, atol=settings.atol)
    return {
        "nfe_of_dopri5": found.nfe,
        "nfe_of_dopri5_is": f"{len(x0)} samples, rtol = atol = {settings.rtol:g}, float32",
    }


def with_inception(run: Run, folder: Path, out: Path, say: Callable[[dict], None]) -> None:
    """FID, where the package and its weights are here; what was measured before stays whatever happens."""
    try:
        features.network_space("inception", run.data, run.device)
    except Exception as error:
        say({"what": "FID left out", "because": f"{type(error).__name__}: {error}"[:300]})
        return
    again = Run(folder, ["features=classifier,inception"])
    say({"what": "FID", **evaluate_run(again)["values"]})
    leave(again, out)


def leave(run: Run, out: Path) -> None:
    """Weights and record as `fmcore export` keeps them; under one name, data/pretrained can hold them as they are."""
    with tempfile.TemporaryDirectory() as place:
        weights = pretrained.keep(run, Path(place))
        write_file(out / "record.json", weights.with_suffix(".json").read_bytes())
        write_file(out / "weights.safetensors", weights.read_bytes())


def thin(file: Path, rows: int = 20_000) -> None:
    """Keep every k-th line of a table that has very many."""
    head, *lines = file.read_text().splitlines()
    if len(lines) > rows:
        write_file(file, "\n".join([head, *lines[:: -(-len(lines) // rows)], ""]).encode())


def checked(file: Path) -> int:
    """The bytes of a file that is left; says so if they are too many to come back."""
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{file} has {size:,} bytes, more than the {MOST_BYTES:,} that a file may have")
    return size


def as_line(found: Any) -> str:
    """A result as one line of JSON, numbers with four digits."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.4g}")
        if isinstance(value, dict):
            return {key: short(inner) for key, inner in value.items()}
        return value

    return json.dumps(short(found))
