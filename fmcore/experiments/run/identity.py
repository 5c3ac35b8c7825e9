"""Which run a file belongs to: the settings and the images that it was trained with.

Every file of a run carries it (`fmcore.tensor_file`, the checkpoint), and whoever reads one compares it with what
config.json and the data set say. So weights are not taken for those of another seed, path, loss or data set when files
were copied or edited. Two trainings with the same settings on the same images have the same identity, and as a rule the
same weights; the record says by a digest which weights its values are of.

Settings that may change afterwards are left out: those of the evaluation, the folder of the data, and how long the
training lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.config.overrides import flat, without_place

Identity: TypeAlias = Mapping[str, Any]
DURATION = ("training.steps", "training.minutes")
DATA = "fingerprint of the data"


def identity(configuration: Configuration, fingerprint: str | None) -> dict[str, Any]:
    """The identity of a run: setting to value, and the fingerprint of its data set; None if nobody kept that."""
    settings = flat(without_place(configuration))
    found = {
        name: value for name, value in settings.items() if not name.startswith("evaluation.") and name not in DURATION
    }
    return found | {DATA: fingerprint}


def label(what: str, run: Identity | None, **more: Any) -> dict[str, Any]:
    """What a file says that it holds, and of which run."""
    return {"what": what, "run": None if run is None else dict(run), **more}


def check_label(said: Mapping[str, Any] | None, file: Path, what: str, run: Identity | None, **more: Any) -> None:
    """Raise ValueError, naming what differs, if a file holds something else, or belongs to another run.

    Args:
        said: by `label`; None in a file of an earlier version, which nothing is known of.
        file: which file, to name it.
        what: must be in it.
        run: that it must belong to; None if that does not matter.
        more: what else it must say.
    """
    if said is None:
        return
    expected = {"what": what, **more}
    changes = [
        f"{name} is {said.get(name)} there and {value} here"
        for name, value in expected.items()
        if said.get(name) != value
    ]
    if run is not None:
        changes += differences(said.get("run"), run)
    if changes:
        raise ValueError(
            f"{file} belongs to another run: {', '.join(changes)}. Put back the file of this run, or train again "
            "with --overwrite"
        )


def differences(said: Any, expected: Identity) -> list[str]:
    """In which settings two runs differ, in words.

    Settings that one of the two does not know came with a later version, or are gone, and are not compared; nor is a
    fingerprint that nobody kept.
    """
    if not isinstance(said, Mapping):
        return ["it is of no run"]
    both = [name for name in expected if name in said and not (name == DATA and None in (said[name], expected[name]))]
    return [f"{name} is {said[name]} there and {expected[name]} here" for name in both if said[name] != expected[name]]
