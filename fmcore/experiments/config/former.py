"""Configurations that an earlier version wrote: fields that came later, and fields that have another name now."""

from __future__ import annotations

from typing import Any

from fmcore.training.checkpointing import ADDED as LATER
from fmcore.training.checkpointing import RENAMED as TRAINING

# Fields that came later, with what was done before there was a choice. These are facts about old runs: a default that
# changes later does not change them.
ADDED: dict[str, Any] = {
    "bank": None,
    "train_images": None,
    "dequantize": True,
    "source.distribution": "gaussian",
    "source.norm": "none",
    **dict.fromkeys(
        ("source.masking", "source.components", "source.kappa", "source.flow_steps", "source.flow_width"), None
    ),
    "source.tau": None,
    "source.threshold": None,
    "size": None,
    "skip_broken": False,
    "teacher": None,
    "teacher_pairs": None,
    "labels": False,
    "label_dropout": 0.1,
    "times": "uniform",
    "times_mean": 0.0,
    "times_std": 1.0,
    "times_shift": 1.0,
    "times_uniform": 0.0,
    "weight": "none",
    "start_from": None,
    **{f"training.{name}": value for name, value in LATER.items()},
    "training.minutes": None,
    "evaluation.sample_precision": "fp32",
    "evaluation.sample_compile": False,
    "evaluation.guidance_scale": 1.0,
    "evaluation.sde_scale": 1.0,
    "evaluation.velocity_pairs": 0,
    "evaluation.velocity_times": [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99],
    "evaluation.hybrid_switches": [],
    "evaluation.hybrid_images": 256,
    "evaluation.budgets": [],
    "evaluation.prune_tau": None,
    "evaluation.prune_threshold": None,
    "evaluation.align_steps": False,
}
# Former names, and those of today.
RENAMED: dict[str, str] = {f"training.{former}": f"training.{name}" for former, name in TRAINING.items()}


def completed(content: Any) -> Any:
    """A stored configuration of an experiment, as of today: renamed fields renamed, later fields filled in.

    What a run did stays what it was: a field that its configuration lacks gets the value that stands for what was done
    before there was that field. What else is wrong with the content stays so, for `from_dict` to name.

    Args:
        content: as `json` reads it; not changed.

    Returns:
        A new dictionary of dictionaries; the content itself if it is no dictionary.
    """
    if not isinstance(content, dict):
        return content
    found = {name: dict(value) if isinstance(value, dict) else value for name, value in content.items()}
    for former, name in RENAMED.items():
        group, field = _place(found, former)
        if group is not None and field in group:
            value = group.pop(field)
            other, now = _place(found, name)
            if other is not None:
                other.setdefault(now, value)
    for name, value in ADDED.items():
        group, field = _place(found, name)
        if group is not None:
            group.setdefault(field, list(value) if isinstance(value, list) else value)
    if found.get("data") == "digits":
        found.pop("data_dir", None)  # a folder was once accepted, and not looked at: digits come with scikit-learn
    return found


def _place(content: dict[str, Any], name: str) -> tuple[dict[str, Any] | None, str]:
    """The dictionary that a field like "training.minutes" belongs into, and its name there; None if that is none."""
    group, _, field = name.rpartition(".")
    inside = content.setdefault(group, {}) if group else content
    return (inside if isinstance(inside, dict) else None), field
