"""A run as earlier versions left it: without digests, fingerprint, and what came later."""

from __future__ import annotations

import json
from dataclasses import asdict

import torch
from safetensors.torch import load_file, save_file

from fmcore.experiments.config.experiment import from_dict
from fmcore.experiments.run import fitted_source


def made_former(folder):
    """Take from the files of a run what earlier versions did not write."""
    content = {}
    for name in ("config.json", "record.json"):
        if (folder / name).exists():
            content[name] = json.loads((folder / name).read_text())
            content[name].pop("digest")
            content[name].pop("weights_digest", None)
            (folder / name).write_text(json.dumps(content[name]))
    source = json.dumps(asdict(from_dict(content["config.json"]).source), sort_keys=True)
    for name, header in (("weights.safetensors", "source"), (fitted_source.FILE, "fitted")):
        save_file(load_file(folder / name), folder / name, {header: source})
    (folder / "data.json").unlink()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    del state["belongs_to"]
    torch.save(state, folder / "checkpoint.pt")
    return folder
