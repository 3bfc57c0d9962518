"""What every test runs under: one torch thread, no network; checkpoints built once a session."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Test processes side by side do not wait for each other's measurements.
os.environ["WORKBENCH_TURN"] = os.path.join(tempfile.gettempdir(), f"turn-{os.getpid()}")

import strict_types
import torch

strict_types.install()  # before anything of the workbench is imported
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list) -> None:
    """Browser tests come last: their one Chromium lives for the rest of the run, with its loop.

    Among them those that start kernels come first. They are the longest, and the last file of a run
    keeps one process waiting for the other.
    """

    def place(item) -> tuple[bool, bool]:
        path = item.path.as_posix()
        return "/tests/browser/" in path, "jupyter" not in path

    items.sort(key=place)
    if os.environ.get("WORKBENCH_SECOND_TRY") == "1":  # decision 012
        for item in items:
            if "/tests/browser/" in item.path.as_posix():
                item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter) -> None:
    """What failed and was tried once more is told with its reason, whatever became of it."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"first try of {report.nodeid}", sep="-")
        terminalreporter.write_line(str(report.longrepr))


@pytest.fixture(autouse=True)
def modes_end_with_their_test():
    """A mode of autograd that outlives its test would fail others, far from the cause."""
    yield
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


# Imported inside: shapes are checked only in modules that are imported after pytest has started.
@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Callable[..., Path]:
    """``checkpoint(family, **changes)``: a folder, the same one for the same arguments."""
    from workbench.testing.checkpoints import write_checkpoint

    made: dict[str, Path] = {}

    def build(family: str, **changes) -> Path:
        key = f"{family}{sorted(changes.items())}"
        if key not in made:
            made[key] = write_checkpoint(tmp_path_factory.mktemp(family), family, **changes)
        return made[key]

    return build


@pytest.fixture(scope="session")
def loaded(checkpoint) -> Callable:
    """``loaded(family, **changes)``: a model, the same one for the same arguments."""
    from workbench.models.load import load

    made: dict = {}

    def get(family: str, **changes):
        folder = checkpoint(family, **changes)
        if folder not in made:
            made[folder] = load(str(folder))
        return made[folder]

    return get


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory) -> Callable[[int, int], Path]:
    """``text_folder(files, lines)``: a new folder of text that is learnt soon."""

    def write(files: int, lines: int) -> Path:
        folder = tmp_path_factory.mktemp("texts")
        for file in range(files):
            rows = [f"row {file} {line} of a table: {file * line}" for line in range(lines)]
            (folder / f"{file}.txt").write_text("\n".join(rows))
        return folder

    return write


@pytest.fixture
def run(capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""
    from workbench.cli import main

    def call(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call
