"""What the command line does about faults of ours, interrupts and readers that leave."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _fail(*_):
    raise ZeroDivisionError("a fault")


def test_our_fault_is_exit_code_1_without_a_traceback(run, monkeypatch):
    monkeypatch.setattr("workbench.commands.methods.run", _fail)
    code, _, err = run("methods")
    assert code == 1
    assert "This is a bug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("how", ["option", "variable"])
def test_debug_shows_the_traceback(run, monkeypatch, how):
    monkeypatch.setattr("workbench.commands.methods.run", _fail)
    if how == "variable":
        monkeypatch.setenv("WORKBENCH_DEBUG", "1")
    code, _, err = run("methods", *(["--debug"] if how == "option" else []))
    assert code == 1
    assert "Traceback" in err


def test_interrupt_anywhere_is_130(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.commands.methods.run", interrupt)
    assert run("methods")[0] == 130


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m workbench methods --json | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
