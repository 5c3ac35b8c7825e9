"""JupyterLab in headless Chromium, apart from the settings, kernels and workspaces of whoever runs the tests."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from playwright.sync_api import BrowserContext, Error, Page, expect, sync_playwright

HOST = "127.0.0.1"
ERROR, STDERR = (f"application/vnd.jupyter.{kind}" for kind in ("error", "stderr"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]

# Whether the prompt of every code cell that is not empty matches a pattern.
PROMPTS = r"""pattern => {
    const cells = [...document.querySelectorAll('.jp-CodeCell')]
        .filter(cell => cell.querySelector('.cm-content')?.innerText.trim());
    return cells.length > 0 && cells.every(
        cell => new RegExp(pattern).test(cell.querySelector('.jp-InputArea-prompt').innerText.trim()));
}"""
EMPTY, NUMBERED = r"^\[ \]:?$", r"^\[\d+\]:?$"
SETTLED = """box => new Promise(resolve => {
    let last = null, same = 0;
    const timer = setInterval(() => {
        const now = box.querySelector('img')?.src;
        same = now && now === last ? same + 1 : 0;
        last = now;
        if (same >= 5) { clearInterval(timer); resolve(true); }
    }, 100);
})"""


def find_chromium() -> str | None:
    """A Chromium or Chrome of this machine; where Debian's packages can be installed, it is installed."""
    with FileLock(Path(tempfile.gettempdir()) / "chromium_of_the_course.lock"):  # two tests would install it at once
        names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        found = next(filter(None, map(shutil.which, names)), None)
        if found is None:
            with sync_playwright() as playwright:
                own = playwright.chromium.executable_path
            found = own if Path(own).is_file() else None
        if found is None and shutil.which("apt-get") and os.geteuid() == 0:
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
                call = ["apt-get", "--quiet", *command]
                subprocess.run(call, env=environment, check=False, stdout=subprocess.DEVNULL)
            found = shutil.which("chromium")
    return found


@dataclass(frozen=True)
class Server:
    """A running JupyterLab."""

    address: str
    token: str

    def page(self, notebook: str) -> str:
        """The address that opens a notebook."""
        return f"{self.address}/lab/tree/{notebook}?reset&token={self.token}"

    def call(self, path: str, method: str = "GET") -> Any:
        """The answer of the server's own interface."""
        request = urllib.request.Request(f"{self.address}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def activity(self) -> str:
        """When the kernel last said something; it must be the only one."""
        [kernel] = self.call("kernels")
        return kernel["last_activity"]

    def wait_for_kernel(self, since: str, seconds: float = 60) -> None:
        """Wait until the kernel has worked after `since`, and rests."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            [kernel] = self.call("kernels")
            if kernel["last_activity"] > since and kernel["execution_state"] == "idle":
                return
            time.sleep(0.1)
        raise AssertionError(f"the kernel was not idle within {seconds} s of a move of the slider")

    def stop_kernels(self) -> None:
        """End what the notebooks opened so far have started."""
        for session in self.call("sessions"):
            self.call(f"sessions/{session['id']}", "DELETE")


@contextmanager
def server(folder: Path, home: Path) -> Iterator[Server]:
    """JupyterLab on `folder`, with all its own files under `home`."""
    settings = {
        "notebook-extension/tracker": {"windowingMode": "none"},  # else cells off screen are not in the page
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    }
    for name, values in settings.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    token = secrets.token_hex(16)
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    environment |= {key: str(home / place) for key, place in places.items()} | {"JUPYTER_TOKEN": token}
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ip={HOST}", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    with open(home / "server.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            running = Server(f"http://{HOST}:{port}", token)
            _wait_for(running, process, home / "server.log")
            yield running
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(running: Server, process: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and process.poll() is None:
        try:
            running.call("status")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@contextmanager
def browser(executable: str, profile: Path, outside: set[str]) -> Iterator[BrowserContext]:
    """Chromium. Requests to other machines are refused, and their addresses added to `outside`."""

    def refuse(route) -> None:
        outside.add(route.request.url)
        route.abort()

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile),
            executable_path=executable,
            headless=True,
            viewport={"width": 1280, "height": 1400},
            args=FLAGS,
        )
        context.route(re.compile(rf"^(https?|wss?)://(?!{re.escape(HOST)}[:/])"), refuse)
        yield context
        context.close()


def run_all(page: Page, address: str, seconds: float) -> None:
    """Open a notebook, run all its cells, and fail on any error or text on stderr."""
    page.goto(address, wait_until="domcontentloaded")
    notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    notebook.locator(".jp-Cell").first.wait_for(timeout=90_000)
    # The notebook's own indicator says idle before a kernel exists, and Run All would be dropped without a word.
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=90_000)
    _menu(page, "Edit", "Clear Outputs of All Cells")
    page.wait_for_function(PROMPTS, arg=EMPTY, timeout=30_000)
    _menu(page, "Run", "Run All Cells")
    page.wait_for_function(PROMPTS, arg=NUMBERED, timeout=seconds * 1000)
    expect(notebook.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle", timeout=60_000)
    assert_no_errors(page)


def _menu(page: Page, menu: str, entry: str) -> None:
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=re.compile(f"^{entry}")).click()


def assert_no_errors(page: Page) -> None:
    """No output of the open notebook, also inside widgets, is an error or text on stderr."""
    bad = page.locator(f'.jp-NotebookPanel [data-mime-type="{ERROR}"], .jp-NotebookPanel [data-mime-type="{STDERR}"]')
    assert bad.count() == 0, "\n".join(bad.all_inner_texts())


def write(page: Page, cell: int, code: str) -> None:
    """Replace what stands in a cell, by hand."""
    page.locator(".jp-NotebookPanel .jp-Cell").nth(cell).locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(code)


def run(page: Page, cells: int) -> None:
    """Run the selected cell and those after it, with the keys."""
    for _ in range(cells):
        page.keyboard.press("Shift+Enter")


def set_check_box(page: Page, server: Server) -> list[str]:
    """Click the first check box of a picture twice. Returns the pictures before, between, after; none without a box."""
    boxes = page.locator(".jupyter-widgets.widget-vbox:has(img)").filter(has=page.locator(".widget-checkbox"))
    if not boxes.count():
        return []
    box = boxes.first
    pictures = [box.locator("img").first.get_attribute("src")]
    for _ in range(2):
        before = server.activity()
        box.locator(".widget-checkbox input").first.click()
        server.wait_for_kernel(before)
        page.wait_for_function(SETTLED, arg=box.element_handle(), timeout=60_000)
        assert_no_errors(page)
        pictures.append(box.locator("img").first.get_attribute("src"))
    return pictures


def move_slider(page: Page, server: Server, which: int = 0) -> tuple[str, str, str]:
    """Move the slider of a picture to its low end, its high end and back. Returns the three pictures."""
    box = page.locator(".jupyter-widgets.widget-vbox:has(.widget-slider):has(img)").nth(which)
    box.wait_for(timeout=60_000)
    handle, readout = box.locator(".noUi-handle").first, box.locator(".widget-readout").first
    readouts, pictures = [readout.inner_text()], []
    for key, end in (("Home", "aria-valuemin"), ("End", "aria-valuemax"), ("Home", "aria-valuemin")):
        before, there = server.activity(), handle.get_attribute("aria-valuenow") == handle.get_attribute(end)
        handle.press(key)
        if not there:
            expect(readout).not_to_have_text(readouts[-1], timeout=30_000)
            server.wait_for_kernel(before)
        readouts.append(readout.inner_text())
        page.wait_for_function(SETTLED, arg=box.element_handle(), timeout=60_000)
        assert_no_errors(page)
        pictures.append(box.locator("img").first.get_attribute("src"))
    _, low, high, again = readouts
    assert low == again != high, f"the keys Home, End, Home bring the slider to {low}, {high}, {again}"
    return tuple(pictures)


def screenshot(page: Page, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        page.screenshot(path=file)
    except Error as problem:
        print(f"no screenshot: {problem}")
