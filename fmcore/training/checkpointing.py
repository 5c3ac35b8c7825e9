"""What is saved of a run, when, and how it goes on from there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fmcore import distributed
from fmcore.checkpoints import check_same, load_checkpoint, save_checkpoint
from fmcore.training.config import TrainingConfig
from fmcore.training.history import History
from fmcore.training.schedule import may_end_anywhere
from fmcore.training.step import Step

Keep = Callable[[int, nn.Module], None]
# What fields of a configuration were called when older checkpoints were written.
RENAMED = {"coupled": "coupling_batch"}
# Fields that came later, with what was done before there was a choice.
ADDED: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0}


@dataclass(eq=False)
class Checkpointer:
    """Writes the checkpoints of a run, and goes on from one.

    Attributes:
        path: of the checkpoint; None saves nothing.
        keep: called in process 0 before each one; see `fmcore.training.train`.
        belongs_to: what a checkpoint must say of the training besides its configuration; None if that does not matter.
        kept: whether the file holds a state of this run.
    """

    path: Path | None
    keep: Keep | None = None
    belongs_to: Mapping[str, Any] | None = None
    kept: bool = False

    def state(self, config: TrainingConfig, resume: bool) -> dict[str, Any] | None:
        """The state to continue from, or None at the start of a run; raises as `fmcore.training.train`."""
        if self.path is None or not self.path.exists():
            return None
        if not resume:
            raise FileExistsError(f"{self.path} exists: resume from it, delete it, or name another file")
        state = load_checkpoint(self.path)
        state["config"] = ADDED | {RENAMED.get(name, name): value for name, value in state["config"].items()}
        asked = asdict(config)
        if config.minutes is not None:  # the steps that fit into them were set then
            asked["steps"] = state["config"]["steps"]
        elif may_end_anywhere(config) and state["config"]["steps"] != config.steps >= len(state["losses"]):
            asked["steps"] = state["config"]["steps"]
            state["notes"] = [*state["notes"], f"{config.steps} steps in place of {asked['steps']}"]
        check_same(state["config"], asked, f"{self.path} was made")
        self.check_belongs(state.get("belongs_to"))
        return state

    def check_belongs(self, said: Any) -> None:
        """Raise ValueError if the checkpoint is of another training; one that does not say so is taken."""
        if said is None or self.belongs_to is None:
            return
        if not isinstance(said, Mapping):
            raise ValueError(f"{self.path} is damaged: it does not say what it belongs to; train again from the start")
        both = [name for name in self.belongs_to if name in said]  # others came with a later version, or are gone
        check_same(
            {name: said[name] for name in both},
            {name: self.belongs_to[name] for name in both},
            f"{self.path} was made",
        )

    def restore(self, state: dict[str, Any], step: Step, history: History) -> None:
        """Load weights, average, Adam's moments and losses; raises ValueError if they are another network's."""
        try:
            step.model.load_state_dict(state["model"])
            step.averaged.load_state_dict(state["ema"])
            step.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{self.path} belongs to another network: {str(error).splitlines()[-1].strip()}"
            ) from error
        history.losses, history.seconds = state["losses"].tolist(), state["seconds"]
        history.notes = state["notes"] + changed_processes(len(history.losses), state["processes"])
        self.kept = True

    def due(self, step: int, config: TrainingConfig) -> bool:
        """Whether to save after this step: every so many, and after the last."""
        return self.path is not None and ((step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps)

    def save(self, step: Step, history: History, config: TrainingConfig) -> None:
        """Save all that a resumed run needs; process 0 writes, the others wait. The time does not count."""
        assert self.path is not None
        history.pause()
        state = {
            "config": asdict(config),
            "model": step.model.state_dict(),
            "ema": step.averaged.state_dict(),
            "optimizer": step.optimizer.state_dict(),
            "losses": torch.tensor(history.losses),
            "seconds": history.seconds,
            "processes": distributed.processes(),
            "notes": history.notes,
            "belongs_to": None if self.belongs_to is None else dict(self.belongs_to),
        }
        if self.keep is not None and distributed.rank() == 0:
            self.keep(len(history.losses), step.averaged.module)
        distributed.first(save_checkpoint, state, self.path)
        self.kept = True
        history.start()


def changed_processes(step: int, before: int) -> list[str]:
    """What to note, and to warn of, when a run goes on with another number of processes."""
    now = distributed.processes()
    if before == now:
        return []
    note = (
        f"resumed at step {step} with {now} process{'es' * (now > 1)} instead of {before}: same batches, but sums are "
        "rounded differently, and dropout and what the loss draws may differ"
    )
    if distributed.rank() == 0:
        warnings.warn(note, stacklevel=4)  # at the call of `train`
    return [note]
