"""Settings that every test shares."""

from __future__ import annotations

import os

# Before anything imports torch: two workers on two cores must not run two threads each.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import settings

# Equal runs on every machine. HYPOTHESIS_PROFILE=explore looks for new examples, and takes its time.
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))
