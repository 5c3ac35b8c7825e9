"""The first second of a command: while it loads, Ctrl-C is answered by a sentence too."""

import os
import signal
import subprocess
import sys
import time

# The default of a terminal, also where the tests run in the background of a shell, which sets Ctrl-C aside.
ENTRY = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from fmcore.__main__ import main
main()
"""
SLOW = """
import pathlib, time
pathlib.Path(__file__).with_name("loading").touch()
for _ in range(1000):
    time.sleep(0.1)  # not once for long: a signal just before that would be heard at its end
"""


def test_who_stops_it_while_it_loads_is_told(tmp_path):
    """A parser that takes long to load stands in for a slow disk."""
    (tmp_path / "tyro.py").write_text(SLOW)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    with subprocess.Popen([sys.executable, "-c", ENTRY], env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "loading").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert said == "stopped (Ctrl-C): nothing was kept; run the same command again\n"
    assert process.returncode == 130
