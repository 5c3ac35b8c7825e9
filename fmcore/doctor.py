"""`fmcore doctor`: what is installed, what this machine can do, and what is missing for which feature."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from fmcore.console import signs
from fmcore.experiments.records import cpu_model, version

# From the folder of the course: the name fmcore on the package index is another project's.
REINSTALL = "pip install -e ."
COURSE = 'pip install -e ".[course]"'
TEST = 'pip install -e ".[test]"'

# package -> (what it is for, how to get it)
NEEDED = {
    "torch": ("everything", REINSTALL),
    "torchdiffeq": ("solving flows", REINSTALL),
    "numpy": ("everything", REINSTALL),
    "scipy": ("optimal transport", REINSTALL),
    "POT": ("optimal transport between sets of different size", REINSTALL),
    "scikit-learn": ("the digits", REINSTALL),
    "safetensors": ("weights files", REINSTALL),
    "pooch": ("downloads", REINSTALL),
    "Pillow": ("photographs", REINSTALL),
    "filelock": ("preparing data once", REINSTALL),
    "matplotlib": ("figures", REINSTALL),
    "pydantic": ("settings on the command line", REINSTALL),
    "tyro": ("the command line", REINSTALL),
    "rich": ("tables", REINSTALL),
    "tqdm": ("progress bars", REINSTALL),
    "jupyterlab": ("reading the course", COURSE),
    "ipywidgets": ("sliders in the chapters", COURSE),
    "jupytext": ("writing chapters", COURSE),
    "nbclient": ("checking exercises", COURSE),
    "pytest": ("the tests", TEST),
    "nbval": ("testing the chapters", TEST),
    "playwright": ("testing the course in a browser", TEST),
}

# Runs in a fresh process: what importing the package costs beyond torch.
TIME_IMPORTS = """
import time
import torch
start = time.perf_counter()
import fmcore
for name in fmcore.__all__:
    getattr(fmcore, name)
print(time.perf_counter() - start)
"""


def show_report() -> None:
    """Print three tables: machine, packages, and what is missing."""
    from rich.table import Table

    from fmcore.console.tables import WHOLE, WORDS, Console

    console = Console()
    machine = Table(title="this machine", title_justify="left", show_header=False)
    machine.add_column(style="bold", **WHOLE)
    machine.add_column(**WORDS)
    for name, text in machine_facts().items():
        machine.add_row(name, text)
    console.show(machine)

    packages = Table(title="packages", title_justify="left")
    for title, kind in (("package", WHOLE), ("version", WHOLE), ("for", WORDS)):
        packages.add_column(title, **kind)
    missing = []
    for package, (purpose, remedy) in NEEDED.items():
        found = version(package)
        packages.add_row(package, found or "[red]missing[/red]", purpose)
        if found is None:
            missing.append((package, purpose, remedy))
    console.show(packages)

    if chromium() is None:
        missing.append(("Chromium", "testing the course in a browser", "playwright install chromium"))
    if not missing:
        console.print("Nothing is missing.")
    for name, purpose, remedy in missing:
        place = f", in {course_folder()}" if "-e" in remedy.split() else ""
        signs.say(f"Missing: {name}, for {purpose}. Get it with: {remedy}{place}")


def course_folder() -> str:
    """The folder whose pyproject.toml is to be installed, where this package runs from it; else how to find it."""
    folder = Path(__file__).resolve().parents[1]
    return str(folder) if (folder / "pyproject.toml").is_file() else "the folder of the course"


def device_used() -> str:
    """Where fmcore computes on this machine; on a Mac, that its GPU is left out."""
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return "cpu: fmcore does not compute on the GPU of a Mac (mps)"
    return "cpu"


def machine_facts() -> dict[str, str]:
    """What this machine is and can do, as name and text."""
    return {
        "system": platform.platform(terse=True),
        "python": f"{platform.python_version()} ({sys.executable})",
        "device": device_used(),
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used",
        "vector units": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 on the cpu": bfloat16_support(cpu_flags()),
        "Chromium": chromium() or "not found",
        "import all of fmcore": f"{import_seconds():.2f} s beyond import torch",
    }


def import_seconds() -> float:
    """Seconds that ``import fmcore`` and all its modules take in a process that has imported torch."""
    out = subprocess.run([sys.executable, "-c", TIME_IMPORTS], capture_output=True, text=True, check=True, timeout=300)
    return float(out.stdout)


def cpu_flags() -> set[str] | None:
    """The processor's features as Linux names them; None elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith(("flags", "Features"))), None)


def bfloat16_support(flags: set[str] | None) -> str:
    """Whether precision=bf16 can be expected to be faster than fp32 on this processor."""
    if flags is None:
        return "not known on this system: measure before using precision=bf16"
    units = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in flags]
    if units:
        return f"yes ({', '.join(units)}); large networks gain from precision=bf16, small ones may not"
    return "no: precision=bf16 would be far slower than fp32"


def chromium() -> str | None:
    """The browser that the browser tests would use."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pass
    else:
        with sync_playwright() as playwright:
            if Path(playwright.chromium.executable_path).exists():
                return playwright.chromium.executable_path
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
