"""Start this process again with a driver that owns no GPU (`stub_driver.c`), so that PyTorch finds a device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
MARK = "FMCORE_STUB_DRIVER"  # says, in the environment of the second start, that this is the second


def restarted(module: str) -> None:
    """Run `python -m module` again with the stub loaded, and leave with its exit status; return if this is that run.

    Raises:
        SystemExit: with the status of the second run, or with what is missing.
    """
    if MARK in os.environ:
        return
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("needs a C compiler, cc, for the stub of the driver")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "libcuda.so.1")  # the name under which PyTorch loads the driver
        subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, HERE / "stub_driver.c", "-ldl"], check=True)
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
        # Loaded first, its runtime functions take the place of those of NVIDIA's runtime, which would refuse the stub.
        environment = {**os.environ, MARK: "1", "LD_LIBRARY_PATH": path, "LD_PRELOAD": str(library)}
        raise SystemExit(subprocess.run([sys.executable, "-m", module, *sys.argv[1:]], env=environment).returncode)
