"""What an experiment is: one frozen dataclass, every field of which can be set from the command line as field=value."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from fmcore import paths
from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.config.former import completed
from fmcore.experiments.config.overrides import EXTRA_FORBIDDEN, adapter, flat, to_dict
from fmcore.experiments.config.source import SourceConfig
from fmcore.paths import AffinePath
from fmcore.settings import checked
from fmcore.time_sampling import logit_normal, shifted
from fmcore.training import TrainingConfig

# Losses whose network is the velocity itself.
VELOCITY_LOSSES = ("conditional_flow_matching", "empirical_flow_matching")
# Data that are in no folder of their own, and where they come from.
WITHOUT_FOLDER = {"digits": "digits come with scikit-learn", "two_moons": "points in the plane are drawn"}


@dataclass(frozen=True)
class NetworkConfig:
    """The U-Net; see `fmcore.networks.UNet`."""

    __pydantic_config__ = EXTRA_FORBIDDEN

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    heads: int = 4
    head_channels: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        checked(self)
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {self.blocks}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability from 0 to below 1, got {self.dropout}")


@dataclass(frozen=True)
class Configuration:
    """One experiment: which source, data, path, coupling and loss, and how to train and evaluate.

    Attributes:
        experiment: its name in the catalog.
        data: name of a data set.
        data_dir: folder that holds the data set; none for the one in the environment variable FMCORE_DATA, or else the
            package's own, and for digits, which come with scikit-learn. It says where the data is, not what is done:
            records leave it out, and a run may be resumed with another.
        size: height and width that the images of data=folder are reduced to; none for other data.
        skip_broken: leave out what does not decode of data=folder, in place of an error that names the first such file.
        path: name of a path; see `fmcore.paths`.
        sigma_min: standard deviation that the OT path keeps at the data. The paper's text gives no value; 0 is the
            rectified flow.
        coupling: which source sample meets which image in a batch: any, by optimal transport, the nearest of a few
            (`fmcore.couplings`), or that which a trained flow leads to an image of its own.
        teacher: the folder of the run whose flow that is, for coupling=reflow.
        teacher_pairs: how many pairs it makes; none for as many as there are training images.
        loss: what the network predicts; see `fmcore.losses`.
        times: which times the network is trained at, uniform or logit_normal; see `fmcore.time_sampling`. Likelihoods
            and sampling do not depend on it.
        times_mean, times_std: of the logits.
        times_shift: moves times towards the source (above 1) or the data.
        times_uniform: the share of times that is uniform all the same, so that none is missed.
        weight: of the squared error, for conditional flow matching: as of the velocity, the noise or the data.
        bank: M of empirical flow matching, the number of points in the closed form that is its target: the image of a
            row and M - 1 further training images, drawn with replacement for each micro-batch. None with other losses.
        train_images: train on this many images of the training split, drawn by the training seed (more images contain
            fewer ones); none for all. Frechet distances are still taken to the whole split.
        dequantize: put each pixel at a random place in its bin, so that images have a density. Without, pixels are in
            the middle of their bins, and the training set is the finite one of the closed form.
        flips: mirror each training image with probability 1/2. Reference images are never mirrored.
        labels: tell the network the class of each image; samples are then drawn by class. Mini-batch transport pairs
            within classes.
        label_dropout: probability with which a training image's class is kept from the network, so that it learns the
            velocity of all classes together too, which guidance needs; see `fmcore.guidance`.
        start_from: a weights file of a network of this shape, at which the training starts.
    """

    __pydantic_config__ = EXTRA_FORBIDDEN

    experiment: str
    data: Literal["digits", "cifar10", "imagenet32", "imagenet64", "imagenet128", "celeba64", "folder"]
    data_dir: str | None = None
    size: int | None = None
    skip_broken: bool = False
    path: Literal["rectified", "ot", "variance_preserving", "variance_exploding", "cosine"] = "rectified"
    sigma_min: float = 0.0
    coupling: Literal["independent", "minibatch_ot", "nearest_noise", "reflow"] = "independent"
    teacher: str | None = None
    teacher_pairs: int | None = None
    loss: Literal[
        "conditional_flow_matching",
        "empirical_flow_matching",
        "noise_prediction",
        "data_prediction",
        "score_matching",
        "score_flow",
    ] = "conditional_flow_matching"
    times: Literal["uniform", "logit_normal"] = "uniform"
    times_mean: float = 0.0
    times_std: float = 1.0
    times_shift: float = 1.0
    times_uniform: float = 0.0
    weight: Literal["none", "noise", "data"] = "none"
    bank: int | None = None
    train_images: int | None = None
    dequantize: bool = True
    flips: bool = False
    labels: bool = False
    label_dropout: float = 0.1
    start_from: str | None = None
    source: SourceConfig = field(default_factory=SourceConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        checked(self)
        check_data_dir(self.data, self.data_dir)
        if (self.data == "folder") != (self.size is not None):
            raise ValueError(
                f"data={self.data} with size={self.size}: images of a folder of your own are reduced to a size, for "
                "example data=folder data_dir=FOLDER size=32, and other data have theirs"
            )
        if self.skip_broken and self.data != "folder":
            raise ValueError(f"skip_broken=true with data={self.data}: it is for data=folder, so leave it out")
        self._check_path()
        self._check_loss()
        if self.train_images is not None and self.train_images < 2:
            raise ValueError(f"train_images must be at least 2, got {self.train_images}")
        self.source.check_training(self.path, self.loss, self.coupling)
        self.evaluation.check_snapshots(self.training.checkpoint_every)
        self.evaluation.check_source(self.source, self.path)
        self.evaluation.check_exact_velocity(self.dequantize, self.coupling)
        self._check_labels()
        self._check_teacher()
        self._check_times()

    def _check_path(self) -> None:
        """Raise ValueError if the path has another's parameter, or a wrong one."""
        if self.sigma_min and self.path != "ot":
            raise ValueError(f"sigma_min belongs to path=ot, and the path is {self.path}: leave it out")
        self.build_path()

    def _check_loss(self) -> None:
        """Raise ValueError unless the loss has what it needs of path, coupling and bank."""
        if (self.loss == "empirical_flow_matching") != (self.bank is not None):
            raise ValueError(
                f"loss={self.loss} with bank={self.bank}: empirical flow matching needs the number of points of its "
                "target, for example bank=128, and other losses have none"
            )
        if self.bank is not None and (self.bank < 1 or self.coupling != "independent"):
            raise ValueError(
                f"bank={self.bank} with coupling={self.coupling}: a bank has at least one point, and its velocity is "
                "that of independent pairs, so use coupling=independent"
            )
        start = self.build_path().alpha(torch.zeros(()))
        if self.loss not in (*VELOCITY_LOSSES, "data_prediction") and float(start) == 0:
            raise ValueError(
                f"loss={self.loss} says nothing about the velocity at t = 0 of the {self.path} path, which is pure "
                "noise there: use path=variance_preserving, or loss=conditional_flow_matching"
            )

    def _check_labels(self) -> None:
        """Raise ValueError if labels are asked for together with what knows no classes, or guidance without labels."""
        if not 0 <= self.label_dropout < 1:
            raise ValueError(f"label_dropout is a probability from 0 to below 1, got {self.label_dropout}")
        if not self.labels:
            if self.evaluation.guidance_scale != 1:
                raise ValueError(
                    f"guidance_scale={self.evaluation.guidance_scale} needs a network that knows classes: train with "
                    "labels=true, or leave it out"
                )
            return
        if self.label_dropout == 0 and self.evaluation.guidance_scale != 1:
            raise ValueError(
                f"guidance_scale={self.evaluation.guidance_scale} with label_dropout=0: guidance compares the velocity "
                "of a class with that of all, which is learned from images without their class; set label_dropout=0.1"
            )
        of_all = [name for name in ("velocity_pairs", "hybrid_switches") if getattr(self.evaluation, name)]
        if self.bank is not None or of_all:
            raise ValueError(
                f"labels=true with {', '.join(of_all) or f'bank={self.bank}'}: the closed form there is that of all "
                "classes together; leave out one of the two"
            )

    def _check_teacher(self) -> None:
        """Raise ValueError unless reflow has a teacher, and nothing else has one."""
        if (self.coupling == "reflow") != (self.teacher is not None):
            raise ValueError(
                f"coupling={self.coupling} with teacher={self.teacher}: reflow is trained on the pairs of a finished "
                "run, teacher=FOLDER, and other couplings have none"
            )
        if self.teacher_pairs is not None and (self.teacher is None or self.teacher_pairs < 2):
            raise ValueError(f"teacher_pairs={self.teacher_pairs}: at least 2, for coupling=reflow alone")
        if self.teacher is not None and not (
            self.loss == "conditional_flow_matching" and self.source.is_plain and self.train_images is None
        ):
            raise ValueError(
                "coupling=reflow needs loss=conditional_flow_matching, a standard Gaussian source and all training "
                "images: its images are those of the teacher"
            )

    def _check_times(self) -> None:
        """Raise ValueError if times or their weight are not what the loss can be given."""
        if self.times == "uniform" and (self.times_mean, self.times_std, self.times_uniform) != (0, 1, 0):
            raise ValueError("times_mean, times_std and times_uniform belong to times=logit_normal: leave them out")
        if not 0 <= self.times_uniform < 1:
            raise ValueError(f"times_uniform is a share from 0 to below 1, got {self.times_uniform}")
        shifted(logit_normal(0, self.times_mean, self.times_std), self.times_shift)  # which say what is wrong
        if self.weight != "none" and self.loss != "conditional_flow_matching":
            raise ValueError(f"weight={self.weight} belongs to loss=conditional_flow_matching: leave it out")

    def build_path(self) -> AffinePath:
        """The path, with its parameters."""
        return paths.by_name(self.path, **({"sigma_min": self.sigma_min} if self.path == "ot" else {}))


def check_data_dir(data: str, data_dir: str | None) -> None:
    """Raise ValueError if a folder is named for data that come from no folder."""
    if data in WITHOUT_FOLDER and data_dir is not None:
        raise ValueError(f"data_dir={data_dir} with data={data}: {WITHOUT_FOLDER[data]}, so leave data_dir out")


def from_dict(content: Any) -> Configuration:
    """The configuration back from JSON, with every type checked; one that an earlier version wrote is `completed`.

    Raises:
        ValueError: on fields that are missing, unknown or of the wrong type; the message names them.
    """
    from pydantic import ValidationError

    try:
        # As text, for which "strict" lets a list be a tuple, and no text a number.
        made = adapter(Configuration).validate_json(json.dumps(found := completed(content)), strict=True)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors())
        raise ValueError(f"not a configuration of this version: {problems}") from None
    missing = sorted(flat(to_dict(made)).keys() - flat(found).keys() - {"data_dir"})
    if missing:
        raise ValueError(f"not a configuration of this version: it lacks {', '.join(missing)}")
    return made
