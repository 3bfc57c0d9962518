"""A real browser against real servers on 127.0.0.1; everything else is refused and reported.

Without Chromium the tests are skipped with the reason; with ``WORKBENCH_REQUIRE_BROWSER=1`` a
missing browser is a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOME_HOSTS = {"127.0.0.1", ""}


def _chromium() -> str | None:
    return os.environ.get("WORKBENCH_CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES)), None
    )


@pytest.fixture(scope="session")
def browser():
    """One headless Chromium for the whole run."""
    required = os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1"
    path = _chromium()
    if path is None:
        reason = "no Chromium on this machine; install the system's chromium package"
        pytest.fail(reason) if required else pytest.skip(reason)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=20_000)  # how fast a page answers is not what these tests measure
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        chromium = playwright.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()


class Watch:
    """Collects what must not happen on a page: requests to elsewhere, errors, console errors."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def on(self, page) -> None:
        page.route("**/*", self._guard)
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error.stack or error}"))
        page.on("console", self._console)

    def _guard(self, route) -> None:
        if (urlparse(route.request.url).hostname or "") in HOME_HOSTS:
            route.continue_()
        else:
            self.wrong.append(f"request off this machine: {route.request.url}")
            route.abort()

    def _console(self, message) -> None:
        if message.type == "error":
            self.wrong.append(f"console error: {message.text} ({message.location.get('url', '')})")


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """Open pages that are watched; the test fails at its end for anything in ``Watch.wrong``."""
    contexts, watch = [], Watch()

    def open_(url: str, *, width=1280, height=800, dark=False, **options):
        scheme = "dark" if dark else "light"
        size = {"width": width, "height": height}
        context = browser.new_context(viewport=size, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(45_000)
        watch.on(page)
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not watch.wrong, "\n".join(watch.wrong)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen, log: Path, timeout_s: float = 90) -> None:
    """Until the server answers; a server that died shows its log."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"{url} did not come up:\n{log.read_text()[-3000:]}")


def start(command: list[str], log: Path, **environment: str) -> subprocess.Popen:
    with log.open("w") as out:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
            start_new_session=True,
        )


def end(process: subprocess.Popen) -> None:
    """Ask the server and its children to end, then insist."""
    for what in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, what)
            process.wait(8)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """Where screenshots go: ``WORKBENCH_SCREENSHOTS`` or a temporary folder."""
    given = os.environ.get("WORKBENCH_SCREENSHOTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def app_url(browser, tmp_path_factory) -> Iterator[str]:
    """The dashboard, as ``workbench app`` serves it."""
    folder, port = tmp_path_factory.mktemp("app"), free_port()
    code = f"from widgets.app import serve; serve(port={port})"
    process = start([sys.executable, "-c", code], folder / "log.txt")
    try:
        wait_for(f"http://127.0.0.1:{port}/favicon.ico", process, folder / "log.txt")
        yield f"http://127.0.0.1:{port}/"
    finally:
        end(process)


@pytest.fixture
def jupyter(jupyter_server) -> Iterator[tuple[str, Path]]:
    """The server for one test at a time of all processes.

    JupyterLab waits two seconds for a view to start, which two pages, their servers and their
    kernels on two cores may together not give it.
    """
    with FileLock(Path(tempfile.gettempdir()) / "workbench-jupyter-page.lock", timeout=600):
        yield jupyter_server


@pytest.fixture(scope="session")
def jupyter_server(browser, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """JupyterLab with nobody's settings, and the folder that it shows."""
    home, port = tmp_path_factory.mktemp("jupyter"), free_port()
    work = home / "work"
    work.mkdir()
    settings = home / "settings"
    for plugin, values in {
        "notebook-extension/tracker": {"autoStartDefaultKernel": True},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        file = settings / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={work}"]
    command += [f"--LabApp.user_settings_dir={settings}", "--LabApp.extension_manager=readonly"]
    command += [f"--LabApp.workspaces_dir={home / 'workspaces'}"]
    places = ("CONFIG", "DATA", "RUNTIME")
    private = {f"JUPYTER_{place}_DIR": str(home / place.lower()) for place in places}
    private |= {"HOME": str(home), "IPYTHONDIR": str(home / "ipython")}
    private["PYTHONPATH"] = str(ROOT)
    process = start(command, home / "log.txt", **private)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status", process, home / "log.txt")
        yield f"http://127.0.0.1:{port}", work
    finally:
        end(process)
