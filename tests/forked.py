"""Processes of their own without the wait: forked from one that has loaded PyTorch and the package.

Loading them takes seconds of a processor, many times what most processes of these tests do afterwards. One process, the
first time that it is needed, loads everything and then becomes, by fork, whatever is asked for; it never computes, so
that it has one thread, and what is forked from it starts as clean as a new process. Where there is no such fork, all
are started anew. What a process loads, and how torchrun starts one, is for tests that do not come this way.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOADED = ["torch._dynamo", "torchdiffeq", "sklearn.datasets", "matplotlib.figure", "tyro"]
LOADED += ["fmcore.cli", "fmcore.papers.catalog", "fmcore.experiments.evaluate.evaluation", "fmcore.networks"]
LONGEST = 1 << 17  # bytes of an order


def python(arguments, environment, separate_errors=False):
    """As subprocess.Popen([sys.executable, *arguments], env=environment) with text from stdout, and from stderr."""
    arguments = [str(argument) for argument in arguments]
    if sys.platform == "linux":
        return Process(arguments, environment, separate_errors)
    errors = subprocess.PIPE if separate_errors else subprocess.STDOUT
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)


class Process:
    """A forked process, with the part of the interface of subprocess.Popen that tests use."""

    def __init__(self, arguments, environment, separate_errors):
        pipes = [os.pipe() for _ in range(1 + separate_errors)]
        try:
            order = {"arguments": arguments, "environment": dict(environment), "folder": os.getcwd()}
            self.pid = ask(order, [write for _, write in pipes])
        finally:
            for _, write in pipes:
                os.close(write)
        self.stdout, self.stderr = ([os.fdopen(read, encoding="utf-8") for read, _ in pipes] + [None])[:2]
        self.returncode = None

    def poll(self):
        if self.returncode is None:
            self.returncode = ask({"ended": self.pid})
        return self.returncode

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        while self.poll() is None:
            time.sleep(0.005)
        return self.returncode

    def communicate(self, timeout):
        """All that it prints; it is killed after this many seconds."""
        alarm = threading.Timer(timeout, os.kill, (self.pid, signal.SIGKILL))
        alarm.start()
        try:
            with ThreadPoolExecutor(2) as pool:
                printed = [*pool.map(lambda file: file and file.read(), (self.stdout, self.stderr))]
            self.wait()
        finally:
            alarm.cancel()
            self.close()
        return printed

    def close(self):
        for file in (self.stdout, self.stderr):
            if file:
                file.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.kill()
        self.wait()
        self.close()


@functools.cache
def server():
    """The end of a channel on which the process that forks takes orders."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", f"from tests.forked import serve; serve({theirs.fileno()})"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen(command, env=environment, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


def ask(order, files=()):
    """Send an order, with open files, and return the answer."""
    channel, message = server(), json.dumps(order).encode()
    assert len(message) < LONGEST
    socket.send_fds(channel, [message], files)
    return json.loads(channel.recv(LONGEST))


def serve(number):
    """Load, then fork for every order until nobody can give another."""
    # As in a terminal, though the tests were started in the background of a shell, which sets Ctrl-C aside.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in LOADED:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "of several threads one goes through a fork"
    gc.freeze()  # or each process would go through all that is loaded once more at its end
    channel = socket.socket(fileno=number)
    while True:
        message, files, *_ = socket.recv_fds(channel, LONGEST, 2)
        if not message:
            return
        order = json.loads(message)
        if "ended" in order:
            pid, status = os.waitpid(order["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                channel.close()
                leave(run(order, files))
                return  # to the end of the interpreter, as any process
            for file in files:
                os.close(file)
        channel.send(json.dumps(answer).encode())


def run(order, files):
    """Become a process, and return its exit status; any other end than by that status is raised."""
    try:
        become(order, files)
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            raise
        return end.code or 0
    return 0


def leave(status):
    """End, without taking apart all modules that are loaded, which takes longer than what most processes did.

    Where something cannot be written any more, what Python says of it is left to the end of the interpreter.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        sys.exit(status)
    os._exit(status)


def become(order, files):
    """Do what Python does with these arguments: -c CODE, -m MODULE or the path of a script, and more."""
    os.dup2(files[0], 1)
    os.dup2(files[-1], 2)
    for file in files:
        os.close(file)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    first, *rest = order["arguments"]
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = order["arguments"]
        runpy.run_path(first, run_name="__main__")
