"""What is installed, said at the start: what cannot be missing, and what is left out without the rest."""

from __future__ import annotations

import importlib
import platform

import torch

NEEDED = {
    "torchdiffeq": "torchdiffeq",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "safetensors": "safetensors",
    "pydantic": "pydantic",
    "PIL": "pillow",
}
WITHOUT = {
    "torchcfm": "the step of TorchCFM's published script beside ours (it needs POT, too)",
    "torch_fidelity": "FID",
    "matplotlib": "titles on the sheet of samples",
    "tqdm": "a bar in place of lines",
}


def importable(name: str) -> bool:
    """Whether a package is here, and loads."""
    try:
        importlib.import_module(name)
    except Exception:  # a package that is there and does not load is of no use either
        return False
    return True


def missing() -> list[str]:
    """The names, as pip knows them, of packages without which nothing can be done."""
    return [name for module, name in NEEDED.items() if not importable(module)]


def said() -> list[str]:
    """Lines about versions, the device, and what is left out."""
    from fmcore.experiments.records import version

    lines = [f"python {platform.python_version()}, torch {torch.__version__}"]
    lines[0] += "".join(f", {name} {version(name)}" for name in NEEDED.values())
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        lines.append(
            f"{about.name}, {about.total_memory / 2**30:.0f} GiB, compute capability {about.major}.{about.minor}, "
            f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    else:
        lines.append("no NVIDIA GPU here: every step is rehearsed on the CPU, tiny, and its numbers mean nothing")
    lines += [f"{name} is not here: without {what}" for name, what in WITHOUT.items() if not importable(name)]
    return lines
