"""The command line about this machine: what it has, and starting the labs on it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from workbench.commands import lab
from workbench.core.errors import BadInput


def test_doctor_says_what_is_broken(run, monkeypatch):
    from workbench import doctor

    bad = doctor.Check("torch", "failure", "missing", "run make setup")
    monkeypatch.setattr(doctor, "examine", lambda: iter([bad]))
    code, out, _ = run("doctor")
    assert code == 1
    assert "! torch" in out and "run make setup" in out
    code, out, _ = run("doctor", "--json")
    assert code == 1
    assert json.loads(out) == {"ready": False, "checks": [bad.to_json()]}


def test_doctor_finds_this_machine_ready(run):
    code, out, _ = run("doctor", "--json")
    said = json.loads(out)
    names = {check["name"] for check in said["checks"]}
    assert {
        "python",
        "torch",
        "lock",
        "chromium",
        "cores",
        "bf16",
        "compiled pass",
        "zoo:target",
    } <= names
    assert code == 0, [c for c in said["checks"] if c["state"] == "failure"]


def test_doctor_tells_a_lock_that_does_not_fit(tmp_path):
    from workbench.doctor import check_lock

    lock = tmp_path / "constraints.txt"
    lock.write_text("torch==0.1\nnot-installed==3\n")
    (check,) = check_lock(lock)
    assert check.state == "warning"
    assert "torch" in check.found and "not-installed" not in check.found


def test_doctor_reads_the_instruction_sets(tmp_path):
    from workbench.doctor import bf16_instructions

    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n")
    assert bf16_instructions(info) == ["AVX-512 BF16", "AMX BF16"]
    info.write_text("processor : 0\nflags\t\t: fpu avx2\n")
    assert bf16_instructions(info) == []


# Starting JupyterLab


def test_lab_listens_here_only_and_asks_for_no_news(tmp_path):
    words = lab.lab_command(None, 8899, browser=False)
    assert "--ServerApp.ip=127.0.0.1" in words
    assert "--no-browser" in words
    settings = json.loads((lab.SETTINGS / "overrides.json").read_text())
    news = settings["@jupyterlab/apputils-extension:notification"]
    assert news == {"fetchNews": "false", "checkForUpdates": False}
    assert f"--LabApp.app_settings_dir={lab.SETTINGS}" in words


def test_lab_opens_the_tour_or_the_notebook_asked_for(tmp_path, monkeypatch):
    mine = tmp_path / "mine.ipynb"
    mine.write_text("{}")
    assert lab.find_notebook(mine) == mine.resolve()
    (tmp_path / "notebooks").mkdir()
    tour = tmp_path / "notebooks" / "00_tour.ipynb"
    tour.write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert lab.find_notebook(None) == tour
    words = lab.lab_command(tour, 1, False)
    assert f"--ServerApp.root_dir={tmp_path}" in words
    # What is printed for those without a browser here leads to it as well.
    assert "--LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb" in words
    spaced = tmp_path / "of mine.ipynb"
    assert "--LabApp.default_url=/lab/tree/of%20mine.ipynb" in lab.lab_command(spaced, 1, True)
    with pytest.raises(BadInput, match="no such file"):
        lab.find_notebook(tmp_path / "other.ipynb")


def test_app_refuses_a_port_that_is_taken(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, err = run("app", "--no-browser", "--port", port)
    assert code == 2
    assert f"--port {port}" in err
    assert run("app", "--port", "99999")[0] == 2


@pytest.mark.slow
def test_app_serves_the_page_until_interrupted():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "workbench", "app", "--no-browser", "--port", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        page, deadline = "", time.monotonic() + 60
        while not page and time.monotonic() < deadline and server.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as reply:
                    page = reply.read().decode()
            except urllib.error.URLError:
                time.sleep(0.2)
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=30)
    finally:
        server.kill()
    assert "Draft Workbench" in page, err
    assert "cdn.bokeh.org" not in page
    assert server.returncode == 0
    assert "Traceback" not in err


@pytest.mark.parametrize("command, extra", [("lab", "lab"), ("app", "app")])
def test_missing_ui_library_says_what_to_install(run, monkeypatch, command, extra):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run(command)
    assert code == 2
    assert f"draft-workbench[{extra}]" in err


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="only where there is a root user")
def test_lab_runs_as_root_too(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--allow-root" in lab.lab_command(None, 1, True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--allow-root" not in lab.lab_command(None, 1, True)
