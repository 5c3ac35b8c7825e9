"""A finished run, loaded from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmcore import distributed
from fmcore import velocity as velocities
from fmcore.experiments import sealed
from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.config.overrides import flat, with_overrides, without_place
from fmcore.experiments.run import fitted_source, pruning_axes, same_data
from fmcore.experiments.run.folder import CONFIG, RECORD, WEIGHTS, is_sealed, read_configuration
from fmcore.experiments.run.identity import Identity, identity
from fmcore.experiments.run.in_batches import in_batches
from fmcore.experiments.run.network import as_velocity, build_network, for_sampling
from fmcore.experiments.run.pruning_axes import keep_axes
from fmcore.experiments.run.training_batch import load_data, training_images
from fmcore.experiments.run.weights import load_weights
from fmcore.solvers import Solution, solve
from fmcore.sources import Pruned, Source


class Run:
    """A finished run, loaded from its folder, on the device of this process.

    Attributes:
        configuration, data, path: what it was trained on.
        training_images: the images of the training split that it saw, whole numbers.
        device: where it computes.
        velocity: the learned velocity on the scale of the data, whatever the network predicts, in float32.
        sampling_velocity: the same, computed as samples are drawn (`sample_precision`, `sample_compile`).
        fitted: the source of the training.
        source: the distribution that samples start from, on the scale of the data.
        identity: what files of this run belong to.
        digest: of its weights; None in a run of an earlier version.

    Args:
        folder: of the run.
        overrides: settings like ``rtol=1e-3`` that differ from those of the run: of the evaluation, or data_dir.

    Raises:
        FileNotFoundError: if the folder is no run, or its training has not finished.
        ValueError: if a file in it is damaged, a setting cannot be changed any more, or the data set has other images
            than the run was trained on.
    """

    identity: Identity
    digest: str | None = None

    def __init__(self, folder: Path, overrides: Sequence[str] = ()) -> None:
        self.folder = folder
        if not (folder / CONFIG).exists():
            raise FileNotFoundError(
                f"{folder} holds no run (no config.json): train one with fmcore train NAME{listed(folder)}"
            )
        trained = read_configuration(folder)
        self.configuration = with_overrides(trained, overrides)
        check_only_evaluation(trained, self.configuration)
        self.data = load_data(self.configuration)
        same_data.check(self.data, folder)
        self.identity = identity(trained, same_data.fingerprint(self.data))
        self.training_images = training_images(self.configuration, self.data)
        self.path = self.configuration.build_path()
        self.fitted = fitted_source.of_run(self.configuration, folder, self.data, self.training_images, self.identity)
        self.source = self.fitted.start()
        self.device = distributed.local_device()
        self.network = build_network(self.configuration, self.data.shape).to(self.device).eval().requires_grad_(False)
        self.velocity = self.fitted.velocity(as_velocity(self.network, self.configuration))
        fast = for_sampling(self.network, self.configuration)
        self.sampling_velocity = (
            self.velocity if fast is self.network else self.fitted.velocity(as_velocity(fast, self.configuration))
        )
        self.digest = self.use_weights(folder / WEIGHTS)
        if self.digest is None and is_sealed(folder):
            raise ValueError(
                f"{folder / WEIGHTS} has no digest, and the run has: it is another's. Put back the file of this run"
            )

    def use_weights(self, file: Path) -> str | None:
        """Load other weights of this run, such as a snapshot; returns their digest, and raises as the class."""
        steps = int(file.stem) if file.stem.isdigit() else self.configuration.training.steps
        return load_weights(self.network, file, self.identity, self.configuration.source, steps=steps)

    def record(self) -> dict[str, Any]:
        """The record of the run.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is damaged, was changed, or is of other weights than the run has.
        """
        file = self.folder / RECORD
        found = sealed.read(file)
        if not isinstance(found, dict):
            raise ValueError(f"{file} is damaged: it is no record; train again with --overwrite")
        said = found.get("weights_digest")
        if said is not None and self.digest is not None and said != self.digest:
            raise ValueError(
                f"{file} is of other weights than {self.folder / WEIGHTS}: put back the file that belongs to the other"
            )
        return found

    def pruned(self) -> tuple[Source, Pruned]:
        """The source without directions in which there are no data, as `fitted_source.pruned_start`.

        Raises:
            ValueError: unless the evaluation has prune_tau and prune_threshold, or if there is nothing to prune.
        """
        tau, threshold = self.configuration.evaluation.prune_tau, self.configuration.evaluation.prune_threshold
        if tau is None or threshold is None:
            raise ValueError("nothing says what to prune: set prune_tau and prune_threshold")
        file, flips = self.folder / pruning_axes.FILE, self.configuration.flips
        # The axes come from process 0, not from the file: another program may have put those of another tau there.
        axes = distributed.first(lambda: keep_axes(self.data, self.training_images, flips, tau, file, self.identity))
        return fitted_source.pruned_start(self.fitted, threshold, axes)

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        times: Tensor | None = None,
        source: Source | None = None,
        variant: Variant | None = None,
    ) -> Solution:
        """Follow the flow from n source samples, with the solver of the configuration.

        Args:
            n: number of samples.
            generator: of the source.
            times: at which to keep the state; also the grid of a fixed-step method, in place of its own.
            source: to start from, in place of that of the training.
            variant: other steps.
        """
        settings = self.configuration.evaluation
        x0 = (self.source if source is None else source).sample(n, generator)
        if variant is not None:
            factor = variant.factor
            moving = self.sampling_velocity
            velocity = moving if factor == 1 else velocities.scaled_up(moving, factor)

            def in_equal_steps(x: Tensor) -> Solution:
                return solve(velocity, x, t1=self.path.t_max, method="euler", steps=variant.euler_steps)

            found = in_batches(in_equal_steps, self.velocity, x0, self.device)
            return replace(found, x=found.x / factor)

        def by_settings(x: Tensor) -> Solution:
            return solve(
                self.sampling_velocity,
                x,
                t1=self.path.t_max,
                method=settings.method,
                steps=settings.solver_steps if times is None else None,
                rtol=settings.rtol,
                atol=settings.atol,
                times=times,
            )

        return in_batches(by_settings, self.velocity, x0, self.device)


def check_only_evaluation(trained: Configuration, asked: Configuration) -> None:
    """Raise ValueError if more than the evaluation differs: the network is what it is."""
    same = flat(without_place(replace(asked, evaluation=trained.evaluation)))
    changed = [name for name, value in flat(without_place(trained)).items() if same[name] != value]
    if changed:
        raise ValueError(
            f"the run was trained with another {', '.join(changed)}: only settings of the evaluation can be changed "
            f"afterwards ({', '.join(field.name for field in fields(asked.evaluation))}), and data_dir"
        )


def listed(folder: Path) -> str:
    """The runs beside a folder that is none, or inside it, as a hint."""
    found = [*folder.parent.glob("*/config.json"), *folder.rglob("config.json")]
    runs = sorted({path.parent.relative_to(folder.parent).as_posix() for path in found})
    return f"; the runs in {folder.parent} are {', '.join(runs)}" if runs else ""


@dataclass(frozen=True, eq=False)
class Variant:
    """Samples of a run by so many Euler steps, in place of its own solver.

    Attributes:
        euler_steps: number of steps.
        factor: steps are equal in the time of data that are scaled up by this factor; 1 for those of the run.
    """

    euler_steps: int
    factor: float = 1.0
