"""Small trained networks that come with the repository: weights in data/pretrained, each beside the record of its run.

A network is kept as bfloat16, half the size of what was trained; its record says by how much that changes the velocity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmcore.atomic import write_file
from fmcore.data.files import file_digest
from fmcore.data.images import scale
from fmcore.experiments import sealed
from fmcore.experiments.config.experiment import Configuration, from_dict
from fmcore.experiments.run import fitted_source
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.fitted_source import FittedSource
from fmcore.experiments.run.folder import WEIGHTS
from fmcore.experiments.run.identity import Identity, identity
from fmcore.experiments.run.network import as_velocity, build_network, given_classes
from fmcore.experiments.run.weights import keep_weights, load_weights
from fmcore.networks.unet import UNet
from fmcore.paths import AffinePath
from fmcore.solvers import Solution, solve
from fmcore.sources import Source
from fmcore.training import seeded_generator
from fmcore.validation import unknown_name
from fmcore.velocity import Velocity

FOLDER = Path(__file__).resolve().parents[3] / "data" / "pretrained"
SOURCE = ".source"  # ends the name of the file that has the source of a network, where that is not a Gaussian
CHECKED = 64  # images that the rounding is measured on


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained network with all that is needed to sample from it; the data set is not.

    Attributes:
        configuration: what it was trained with.
        record: what was run, on what, and what came out (see `fmcore.experiments.records`).
        network: in evaluation mode, without gradients.
        velocity: the learned velocity, whatever the network predicts.
        path, source: what the velocity belongs to, and where samples start.
        fitted: the source of the training.
        shape: (C, H, W) of an image.
        levels: grey levels of a pixel; `fmcore.data.images.to_uint8` turns samples into them.
        classes: names of the classes that the network was told; none where it was told none.
    """

    configuration: Configuration
    record: dict[str, Any]
    network: UNet
    velocity: Velocity
    path: AffinePath
    source: Source
    fitted: FittedSource
    shape: tuple[int, int, int]
    levels: int
    classes: tuple[str, ...] = ()

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        labels: Tensor | None = None,
        guidance: float | None = None,
        **solver: Any,
    ) -> Solution:
        """Follow the flow from n source samples.

        Args:
            n: number of samples.
            generator: of the source.
            labels: (n,) the class of each sample, as its place in `classes`; None for samples of all classes.
            guidance: its scale; None for that of the configuration.
            solver: as of `fmcore.solvers.solve`.

        Raises:
            ValueError: for labels of a network that was told none, or of another shape than (n,).
        """
        if labels is not None and labels.shape != (n,):
            raise ValueError(f"labels have shape {tuple(labels.shape)} for {n} samples: one class a sample")
        x0 = self.source.sample(n, generator)
        velocity = self.velocity if labels is None else self.given(labels, guidance)
        return solve(velocity, x0, **{"t1": self.path.t_max, **solver})

    def given(self, labels: Tensor, guidance: float | None = None) -> Velocity:
        """The velocity of samples of these classes (B,); raises ValueError as `sample`."""
        classes = len(self.classes)
        return self.fitted.velocity(given_classes(self.network, self.configuration, labels, classes, guidance))


def load(name: str, folder: Path = FOLDER) -> Pretrained:
    """The network kept under a name, on the CPU, in float32.

    Raises:
        FileNotFoundError: if the package runs without its data folder.
        ValueError: on an unknown name (the known ones are listed), or if weights and record do not belong together.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: trained networks come with the repository; run from a checkout")
    known = sorted(file.stem for file in folder.glob("*.safetensors") if not file.stem.endswith(SOURCE))
    if name not in known:
        raise unknown_name("pretrained network", name, known)
    weights, file = folder / f"{name}.safetensors", folder / f"{name}.json"
    record = sealed.read(file)
    try:
        about, levels = record["weights"], int(record["weights"]["levels"])
        channels, height, width = (int(size) for size in about["shape"])
        configuration = from_dict(record["configuration"])
        checksums = {weights: about["sha256"]}
        if not configuration.source.is_plain:
            checksums[folder / f"{name}{SOURCE}.safetensors"] = about.get("source_sha256")
        classes = tuple(map(str, about.get("classes", ())))
        fingerprint = record.get("data", {}).get("fingerprint")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{file} is no record of a kept network ({said}): restore it with git checkout") from None
    for one, checksum in checksums.items():
        if checksum is not None and one.exists() and file_digest(one) != checksum:
            raise ValueError(
                f"{one} is not the file that {name}.json describes (another checksum): restore both with git checkout"
            )
    run = identity(configuration, fingerprint)
    network = build_network(configuration, (channels, height, width), len(classes)).eval().requires_grad_(False)
    # Its checksum was right, so nothing needs a warning of a missing digest.
    load_weights(network, weights, run, configuration.source, warn=False, steps=configuration.training.steps)
    path = configuration.build_path()
    fitted = kept_source(configuration, (channels, height, width), folder / f"{name}{SOURCE}.safetensors", run)
    return Pretrained(
        configuration,
        record,
        network,
        fitted.velocity(as_velocity(network, configuration)),
        path,
        fitted.start(),
        fitted,
        (channels, height, width),
        levels,
        classes,
    )


def kept_source(configuration: Configuration, shape: tuple[int, int, int], file: Path, run: Identity) -> FittedSource:
    """The source of a network that is kept; raises as `load`."""
    found = fitted_source.kept(asdict(configuration.source), file, run, warn=False)
    if found is None and not configuration.source.is_plain:
        raise ValueError(f"{file} is missing, and nothing else says where samples start: restore it with git checkout")
    path_scale = configuration.build_path().source_scale
    return fitted_source.build(configuration.source, shape, found or {}, torch.empty(0), scale, path_scale)


def keep(run: Run, folder: Path = FOLDER, overwrite: bool = False) -> Path:
    """Keep the averaged weights of a finished and evaluated run under the name of its experiment.

    Args:
        run: to keep.
        folder: to write to.
        overwrite: whether to replace a network of that name.

    Returns:
        The weights file; the record lies beside it.

    Raises:
        FileExistsError: if there is a network of that name, unless it may be replaced.
        ValueError: if the run was not evaluated, its source is the training images themselves, or its record is
            damaged or of other weights.
    """
    record = run.record()
    if run.configuration.source.is_oracle:
        raise ValueError(
            f"{run.folder} starts around all of its training images: a network without them cannot be kept"
        )
    if "values" not in record:
        raise ValueError(f"{run.folder} was not evaluated yet: run fmcore evaluate {run.folder} first")
    rounded = {name: value.bfloat16() for name, value in run.network.state_dict().items()}
    name = run.configuration.experiment.replace("/", "_")
    file = folder / f"{name}.safetensors"
    if file.exists() and not overwrite:
        raise FileExistsError(f"{file} exists: add --overwrite to replace it, or name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    keep_weights(rounded, file, run.identity, steps=run.configuration.training.steps)
    of_source = {}
    if not run.configuration.source.is_plain:
        source = folder / f"{name}{SOURCE}.safetensors"
        write_file(source, (run.folder / fitted_source.FILE).read_bytes())
        of_source["source_sha256"] = file_digest(source)
    record["weights"] = {
        "type": "bfloat16",
        "bytes": file.stat().st_size,
        "sha256": file_digest(file),
        **of_source,
        "shape": list(run.data.shape),
        "levels": run.data.levels,
        **({"classes": list(run.data.class_names)} if run.configuration.labels else {}),
        "relative_change_of_velocity_by_rounding": change_by_rounding(run, file),
    }
    sealed.write(folder / f"{name}.json", record)
    return file


def change_by_rounding(run: Run, file: Path) -> float:
    """|| v_rounded - v || / || v || over points of the path to held-out images, at times spread over [0, t_max]."""
    few = run.data.held_out[torch.linspace(0, len(run.data.held_out) - 1, CHECKED).long()]
    generator = seeded_generator(0, "rounding")
    x1 = run.data.scaled(few)
    t = torch.linspace(0, run.path.t_max, len(x1))
    xt = run.path.interpolate(torch.randn(x1.shape, generator=generator), x1, t)
    exact = evaluated(run.velocity, xt.to(run.device), t.to(run.device))
    run.use_weights(file)
    other = evaluated(run.velocity, xt.to(run.device), t.to(run.device))
    run.use_weights(run.folder / WEIGHTS)
    return float((other - exact).norm() / exact.norm())


def evaluated(velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor) -> Tensor:
    """A velocity without its gradient."""
    with torch.no_grad():
        return velocity(x, t)
