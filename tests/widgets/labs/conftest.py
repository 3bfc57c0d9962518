"""A scripted engine for the labs; what it does is in ``lab_script``."""

from __future__ import annotations

import pytest
from lab_script import LONG_S, SMALL_ARENA, Script, make_trace
from tiny_pruning import TinyLab, settled

from widgets.labs.arena.controller import ArenaLab
from widgets.labs.decode.controller import DecodeController
from workbench.core.trace import Trace
from workbench.testing.checkpoints import write_checkpoint


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def trace() -> Trace:
    return make_trace(3)


@pytest.fixture
def decode_lab(script):
    """``decode_lab(**values)``: a controller over the scripted engine, closed after the test."""
    made = []

    def make(**values):
        values = {"prompt": "def f(x", **values}
        made.append(DecodeController("t", "d", tools=script.engine(), **values))
        return made[-1]

    yield make
    for controller in made:
        controller.close()
        assert controller.wait(LONG_S)


@pytest.fixture(scope="session")
def pruning_folder(tmp_path_factory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("pruned"), "llama"))


@pytest.fixture
def pruning_lab(pruning_folder):
    """A lab whose model is loaded and measured."""
    made = TinyLab(pruning_folder, draft="")
    made.warm()
    settled(made)
    yield made
    made.close()


@pytest.fixture
def make(tmp_path, monkeypatch):
    """``make(**settings)``: an arena with a small plan, closed after the test."""
    monkeypatch.chdir(tmp_path)  # where folders that are not named are made
    made = []

    def make_(**settings) -> ArenaLab:
        lab = ArenaLab(**{"folder": str(tmp_path / "sweep"), **SMALL_ARENA, **settings})
        made.append(lab)
        return lab

    yield make_
    for lab in made:
        lab.close()
