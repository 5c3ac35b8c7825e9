"""A finished run, loaded from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

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
from fmcore.experiments.run.network import as_velocity, build_network, for_sampling, given_classes
from fmcore.experiments.run.pruning_axes import keep_axes
from fmcore.experiments.run.training_batch import load_data, training_images, training_labels
from fmcore.experiments.run.weights import load_weights
from fmcore.solvers import Solution, bounded_diffusion, solve, solve_sde
from fmcore.sources import Pruned, Source
from fmcore.velocity import Velocity


class Run:
    """A finished run, loaded from its folder, on the device of this process.

    Attributes:
        configuration, data, path: what it was trained on.
        training_images: the images of the training split that it saw, whole numbers.
        device: where it computes.
        velocity: the learned velocity on the scale of the data, whatever the network predicts, in float32; of all
            classes together where it knows classes.
        sampling_velocity: the same, computed as samples are drawn (`sample_precision`, `sample_compile`).
        fast: the network as it is called for samples.
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
        self.network = build_network(self.configuration, self.data.shape, self.data.num_classes)
        self.network.to(self.device).eval().requires_grad_(False)
        self.velocity = self.fitted.velocity(as_velocity(self.network, self.configuration))
        self.fast = for_sampling(self.network, self.configuration)
        self.sampling_velocity = (
            self.velocity
            if self.fast is self.network
            else self.fitted.velocity(as_velocity(self.fast, self.configuration))
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

    def given(self, labels: Tensor, guidance: float | None = None, sampling: bool = False) -> Velocity:
        """The velocity of samples of these classes, on the scale of the data.

        Args:
            labels: (B,) whole numbers.
            guidance: its scale; None for that of the configuration.
            sampling: computed as samples are drawn, or in float32.

        Raises:
            ValueError: as `given_classes`.
        """
        network, classes = self.fast if sampling else self.network, self.data.num_classes
        return self.fitted.velocity(given_classes(network, self.configuration, labels, classes, guidance))

    def draw_labels(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Classes for n samples, in the shares that they have among the images trained on; None without classes."""
        if not self.configuration.labels:
            return None
        seen = training_labels(self.configuration, self.data).sort().values
        # The middles of n equal parts: each class to within one of its share. A random draw would add its own noise.
        chosen = seen[(2 * torch.arange(n) + 1) * len(seen) // (2 * n)]
        return chosen[torch.randperm(n, generator=generator)]

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        times: Tensor | None = None,
        source: Source | None = None,
        variant: Variant | None = None,
        labels: Tensor | None = None,
        guidance: float | None = None,
    ) -> Solution:
        """Follow the flow from n source samples, with the solver of the configuration.

        Args:
            n: number of samples.
            generator: of the source.
            times: at which to keep the state; also the grid of a fixed-step method, in place of its own.
            source: to start from, in place of that of the training.
            variant: other steps.
            labels: (n,) classes of the samples; None draws them (`draw_labels`) where the network knows classes.
            guidance: its scale; None for that of the configuration.
        """
        settings = self.configuration.evaluation
        x0 = (self.source if source is None else source).sample(n, generator)
        chosen = self.draw_labels(n, generator) if labels is None else labels.to(torch.int64)
        if chosen is not None and chosen.shape != (n,):
            raise ValueError(f"labels have shape {tuple(chosen.shape)} for {n} samples: one class a sample")

        def moving(place: slice, sampling: bool = True) -> Velocity:
            if chosen is None:
                return self.sampling_velocity if sampling else self.velocity
            return self.given(chosen[place], guidance, sampling)

        def plain(place: slice) -> Velocity:
            return moving(place, sampling=False)

        if variant is not None:
            factor = variant.factor

            def in_equal_steps(x: Tensor, place: slice) -> Solution:
                velocity = moving(place) if factor == 1 else velocities.scaled_up(moving(place), factor)
                return solve(velocity, x, t1=self.path.t_max, method="euler", steps=variant.euler_steps)

            found = in_batches(in_equal_steps, plain, x0, self.device)
            return replace(found, x=found.x / factor)

        if settings.method == "sde":
            steps = settings.solver_steps if times is None else len(times) - 1
            noise = torch.Generator(self.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))

            def by_noise(x: Tensor, place: slice) -> Solution:
                diffusion = bounded_diffusion(self.path, settings.sde_scale)
                number = cast(int, steps)
                return solve_sde(
                    moving(place), self.path, x, steps=number, times=times, generator=noise, diffusion=diffusion
                )

            return in_batches(by_noise, plain, x0, self.device)

        def by_settings(x: Tensor, place: slice) -> Solution:
            return solve(
                moving(place),
                x,
                t1=self.path.t_max,
                method=settings.method,
                steps=settings.solver_steps if times is None else None,
                rtol=settings.rtol,
                atol=settings.atol,
                times=times,
            )

        return in_batches(by_settings, plain, x0, self.device)


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
