"""Run an experiment: train, sample, evaluate, and leave everything in one folder.

config.json            the whole configuration
checkpoint.pt          everything needed to resume
weights.safetensors    the averaged weights, to sample from
losses.csv             step, loss
samples.png            samples beside real images
record.json            what was run, on what, and what came out
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmcore import couplings, losses, paths
from fmcore import velocity as velocities
from fmcore.checkpoints import check_same, write_file
from fmcore.data.digits import digits
from fmcore.data.images import ImageData, dequantize
from fmcore.experiments import records
from fmcore.experiments.configuration import Configuration, flat, from_dict, to_dict
from fmcore.networks.unet import UNet
from fmcore.solvers import Solution, solve
from fmcore.sources import Gaussian
from fmcore.training import derived_seed, train
from fmcore.velocity import Velocity

DATA = {"digits": digits}
FILES = ("config.json", "checkpoint.pt", "weights.safetensors", "losses.csv", "samples.png", "record.json")


def train_run(
    configuration: Configuration, folder: Path, resume: bool = False, overwrite: bool = False, progress: bool = True
) -> None:
    """Train and leave config, checkpoint, weights, losses and the training half of the record in the folder.

    Raises:
        FileExistsError: if the folder is not empty and neither resume nor overwrite was asked for.
        ValueError: if resume was asked for with another configuration; the message names the fields that differ.
    """
    data = DATA[configuration.data]()
    settings = configuration.training
    model = build_network(configuration, data)
    loss = batch_loss(configuration, data)
    prepare_folder(configuration, folder, resume, overwrite)
    trained = train(model, loss, data.train, settings, folder / "checkpoint.pt", resume=resume, progress=progress)

    from safetensors.torch import save

    write_file(folder / "weights.safetensors", save(trained.ema.state_dict()))
    lines = [f"{step},{loss:.6g}" for step, loss in enumerate(trained.losses.tolist())]
    write_file(folder / "losses.csv", "\n".join(["step,loss", *lines, ""]).encode())
    record = {
        "experiment": configuration.experiment,
        "configuration": to_dict(configuration),
        "environment": records.environment(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training": {
            "split": "train",
            "images": len(data.train),
            "flips": False,
            "global_batch": settings.batch,
            "processes": 1,
            "steps": settings.steps,
            "seed": settings.seed,
            "ema": settings.ema,
            "wall_seconds": round(trained.seconds, 2),
            "images_per_second": round(settings.steps * settings.batch / trained.seconds, 1),
            "mean_loss_of_last_100_steps": float(trained.losses[-100:].mean()),
        },
    }
    records.write_json(folder / "record.json", record)


def prepare_folder(configuration: Configuration, folder: Path, resume: bool, overwrite: bool) -> None:
    """Make the folder ready for a run and write config.json; raises as `train_run`."""
    if resume and overwrite:
        raise ValueError("--resume continues a run and --overwrite starts it anew: choose one")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: name a folder for the run with --run-dir")
    config = folder / "config.json"
    if folder.exists() and any(folder.iterdir()):
        if not resume and not overwrite:
            raise FileExistsError(
                f"{folder} is not empty: add --resume to continue the run in it, --overwrite to start anew, "
                "or --run-dir to write elsewhere"
            )
        if not config.exists():
            raise FileExistsError(f"{folder} is not empty and holds no run (no config.json): choose another --run-dir")
    if resume and config.exists():
        saved = from_dict(records.read_json(config))
        check_same(flat(to_dict(saved)), flat(to_dict(configuration)), f"the run in {folder} was started")
    if overwrite:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    records.write_json(config, to_dict(configuration))


def build_network(configuration: Configuration, data: ImageData) -> UNet:
    """The untrained network; its weights follow from the training seed."""
    network = configuration.network
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(derived_seed(configuration.training.seed, "network"))
        return UNet(
            data.shape,
            channels=network.channels,
            multipliers=network.multipliers,
            blocks=network.blocks,
            attention=network.attention,
            heads=network.heads,
            head_channels=network.head_channels,
            dropout=network.dropout,
        )


def batch_loss(configuration: Configuration, data: ImageData) -> Any:
    """The loss of one batch of whole-number images, for `fmcore.training.train`."""
    path = paths.by_name(configuration.path)
    couple = couplings.MinibatchOT() if configuration.coupling == "minibatch_ot" else couplings.independent
    measure = getattr(losses, configuration.loss)

    def loss(model: UNet, images: Tensor, generator: torch.Generator) -> Tensor:
        x1 = dequantize(images, data.levels, generator)
        x0 = Gaussian(data.shape).sample(len(x1), generator)
        return measure(model, path, *couple(x0, x1), generator=generator)

    return loss


class Run:
    """A finished run, loaded from its folder.

    Attributes:
        configuration, data, path: what it was trained on.
        velocity: the learned velocity, whatever the network predicts.
        source: the distribution that samples start from.

    Raises:
        FileNotFoundError: if the folder is no run, or its training has not finished.
        ValueError: if a file in it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "config.json").exists():
            raise FileNotFoundError(
                f"{folder} holds no run (no config.json): train one with fmcore train NAME{listed(folder)}"
            )
        self.configuration = from_dict(records.read_json(folder / "config.json"))
        self.data = DATA[self.configuration.data]()
        self.path = paths.by_name(self.configuration.path)
        self.source = Gaussian(self.data.shape, std=self.path.source_scale)
        network = build_network(self.configuration, self.data).eval().requires_grad_(False)
        load_weights(network, folder / "weights.safetensors")
        self.velocity = as_velocity(network, self.configuration)

    def sample(self, n: int, generator: torch.Generator, times: Tensor | None = None) -> Solution:
        """Follow the flow from n source samples, with the solver of the configuration.

        Times at which to keep the state also become the grid of a fixed-step method, in place of its own.
        """
        settings = self.configuration.evaluation
        return solve(
            self.velocity,
            self.source.sample(n, generator),
            t1=self.path.t_max,
            method=settings.method,
            steps=settings.solver_steps if times is None else None,
            rtol=settings.rtol,
            atol=settings.atol,
            times=times,
        )


def as_velocity(network: UNet, configuration: Configuration) -> Velocity:
    """The velocity that belongs to what the network predicts."""
    path = paths.by_name(configuration.path)
    if configuration.loss == "conditional_flow_matching":
        return network
    if configuration.loss == "noise_prediction":
        return velocities.from_noise(network, path)
    return velocities.from_score(network, path)


def load_weights(network: UNet, path: Path) -> None:
    """Load a safetensors file; raises as `Run`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: the training has not finished; continue it with fmcore train ... --resume"
        )
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or belongs to another network: {str(error).splitlines()[0]}") from None


def listed(folder: Path) -> str:
    """The runs beside a folder that is none, as a hint."""
    runs = sorted(path.parent.name for path in folder.parent.glob("*/config.json"))
    return f"; the runs in {folder.parent} are {', '.join(runs)}" if runs else ""
