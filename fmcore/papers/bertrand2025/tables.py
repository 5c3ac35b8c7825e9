"""The figures of Bertrand et al. 2025 as tables: what the paper says of them, and our records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fmcore.papers import reference
from fmcore.papers.bertrand2025.collapse import MEASUREMENTS, label
from fmcore.papers.bertrand2025.experiments import SIZES, TARGETS
from fmcore.papers.blocks import Block, cell, with_spread

Record = dict[str, Any]

TITLES = {
    "two_moons": "two moons",
    "digits": "digits, 8x8",
    "cifar10_small": "CIFAR-10, small network",
    "cifar10": "CIFAR-10",
    "celeba64": "CelebA 64x64",
    "imagenet128": "ImageNet photographs",
}
METHODS = {
    "cfm": "CFM",
    "ot_cfm": "OT-CFM",
    "efm128": "EFM, M = 128",
    "efm256": "EFM, M = 256",
    "efm1000": "EFM, M = 1000",
}
# Times at which figures 1 and 2 are read.
COSINE_TIMES = (0.01, 0.21, 0.4, 0.6)
ERROR_TIMES = (0.15, 0.3, 0.5, 0.7, 0.9)
SAMPLE_COLUMNS = (
    "FD to\ntrain",
    "FD to\nheld out",
    "FD real",
    "nearest\ndistance",
    "nearest\nreal",
    "copies",
    "NFE",
    "steps",
)


NOTES = (
    "FD is the Frechet distance in the features of a classifier of the same data set; 'FD real' that of as many "
    "held-out images to the training split. It is no FID and says nothing beside one.",
    "The nearest training image is one that the network was trained on, by Euclidean distance on the scale [-1, 1]. A "
    "copy is a sample three times nearer to it than to the second nearest. Mirror images are not among the training "
    "images, also where a network was trained on them too: the copy of one counts as new.",
    "Decided: the nearest training image is the one that u* alone leads to from the same noise.",
)


def bertrand2025(folders: Sequence[Path] = ()) -> list[Block]:
    """Figures 1 to 4, with the records in data/results and in further folders; rows that were not run are blank.

    Raises:
        FileNotFoundError: if a folder does not exist, or the package runs without its data folder.
        ValueError: if a record is damaged.
    """
    found = reference.find_records([reference.RESULTS, *folders])
    ours = {name: one for name, one in found.items() if name.startswith("bertrand2025/")}
    records = {name.removeprefix("bertrand2025/"): one for name, one in ours.items()}
    return [*collapse(records), *few_images(records), *hybrids(records), *targets(records), appendix()]


def collapse(records: dict[str, Record]) -> Iterator[Block]:
    """Figure 1: from which time on the exact velocity is that of one image."""
    rows: list[tuple[str, ...]] = []
    for name in MEASUREMENTS:
        data = name.split("/")[1]
        record = records.get(f"{data}/collapse")
        if record is None:
            rows.append((TITLES[data], *[""] * (3 + len(COSINE_TIMES))))
            continue
        with reference.reading(record):
            rows += [collapse_row(TITLES[data].split(",")[0], record, curve) for curve in record["curves"]]
    yield Block(
        "Figure 1: the cosine of u* with the conditional velocity",
        ("data", "d", "n", "90% above .9\nfrom t", *(f"mean cosine\nt = {t:g}" for t in COSINE_TIMES)),
        tuple(rows),
        "In the plane the two velocities differ at almost all times; on CIFAR-10 they agree from early on, and the "
        "larger the dimension, the earlier.",
    )


def collapse_row(data: str, record: Record, curve: Record) -> tuple[str, ...]:
    """The row of one curve of a record."""
    cosine = {round(t, 4): value for t, value in zip(curve["times"], curve["mean_cosine"], strict=True)}
    return (
        f"{data}, {label(curve['size'])}",
        f"{curve['dimension']:,}",
        f"{curve['images']:,}",
        cell(record["values"]["time_of_collapse"][label(curve["size"])]["value"]),
        *(cell(cosine.get(t)) for t in COSINE_TIMES),
    )


def few_images(records: dict[str, Record]) -> Iterator[Block]:
    """Figure 2: failure to learn u*, and what becomes of the samples, against the number of training images."""
    for size, one in SIZES.items():
        if not one.images:
            continue
        found = {f"{images:,}": records.get(f"{size}/n{images}") for images in one.images}
        found["all"] = records.get(f"{size}/hybrid")
        yield Block(
            f"Figure 2, {TITLES[size]}: error of a network trained on n images, E||v - u*||^2/d",
            ("n", *(f"t = {t:g}" for t in ERROR_TIMES)),
            tuple((n, *errors(record)) for n, record in found.items()),
            "The error stays small for few images and grows with n, around t = .15 and towards t = 1.",
        )
        yield Block(
            f"Figure 2, {TITLES[size]}: what it draws",
            ("n", *SAMPLE_COLUMNS),
            tuple((n, *of_samples(record)) for n, record in found.items()),
            "The distance to the nearest training image rises from n = 3,000 on: from there the network generalizes.",
        )


def hybrids(records: dict[str, Record]) -> Iterator[Block]:
    """Figure 3: samples that follow u* up to a time tau, and the network from there on."""
    for size in SIZES:
        record = records.get(f"{size}/hybrid", {})
        with reference.reading(record):
            rows = [
                (
                    cell(one["switch"], 1),
                    f"{one['distance_to_nearest_training_image']:.2f} ± {one['standard_error']:.2f}",
                    cell(one["share_of_copies"]),
                    cell(one["share_decided"]),
                )
                for one in record.get("hybrid", [])
            ]
        yield Block(
            f"Figure 3, {TITLES[size]}: u* up to tau, the network from there on",
            ("tau", "distance to the nearest training image", "share of copies", "share decided"),
            tuple(rows),
            "Up to tau = .2 the samples are as new as the network's own; from tau = .3 on they approach training "
            "images, and by about .4 it is decided which.",
        )


def targets(records: dict[str, Record]) -> Iterator[Block]:
    """Figure 4: the same network on targets of less and less variance."""
    for size in SIZES:
        yield Block(
            f"Figure 4, {TITLES[size]}: what the network regresses on",
            ("target", *SAMPLE_COLUMNS),
            tuple((METHODS[name], *of_samples(records.get(f"{size}/{name}"))) for name in TARGETS),
            "Targets with less variance do not hurt, and slightly improve the Frechet distances to the training and to "
            "the test set (curves only; its appendix has numbers).",
        )


def appendix() -> Block:
    """The numbers of the paper's appendix, which has other data sets."""
    rows = reference.read_reference("bertrand2025_appendix")
    return Block(
        "Appendix of the paper: classifier Frechet distance to the test set",
        ("data", "epoch", "M", "distance"),
        tuple((row["data"], row["epoch"], row["M"], row["distance"]) for row in rows),
        "M = 1 is CFM. Other data sets and networks than ours: only the direction compares.",
    )


def of_samples(record: Record | None) -> tuple[str, ...]:
    """Cells of SAMPLE_COLUMNS, blank without a record."""
    if record is None:
        return ("",) * len(SAMPLE_COLUMNS)
    measured = [
        ("classifier_frechet_distance", "generated"),
        ("classifier_frechet_distance", "generated, to held out"),
        ("classifier_frechet_distance", "held out (real)"),
        ("distance_to_nearest_training_image", "generated"),
        ("distance_to_nearest_training_image", "held out (real)"),
        ("share_of_copies", "generated"),
    ]
    with reference.reading(record):
        return (
            *(with_spread(record["values"].get(measure, {}), of) for measure, of in measured),
            f"{record['evaluation']['nfe']:.0f}",
            f"{record['training']['steps']:,}",
        )


def errors(record: Record | None) -> tuple[str, ...]:
    """The error of the network at ERROR_TIMES, blank without a record."""
    with reference.reading(record):
        measured = {round(one["t"], 4): one["error"] for one in (record or {}).get("velocity_error", [])}
        return tuple(cell(measured.get(t), 3) for t in ERROR_TIMES)
