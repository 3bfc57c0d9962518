"""Sweeps on other processes: a worker killed in the middle costs time and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest

from workbench.bench import workers
from workbench.bench.datasets import BenchPrompt, PromptSet
from workbench.bench.grid import Grid, Setting
from workbench.bench.measurement import Block
from workbench.bench.sweep import Sweep
from workbench.bench.workers import STRIKES, each_block, pool
from workbench.core.errors import BadInput

PROMPTS = PromptSet("made", tuple(BenchPrompt(n, "x", "def f(a):") for n in "abc"))


def grid() -> Grid:
    base = {"targets": ("zoo:draft",), "drafters": ("prompt_lookup",), "repeats": 4}
    return Grid(PROMPTS, **base, setting=Setting(48))


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(tmp_path):
    made, words, killed = grid(), [], 0
    sweep = Sweep(made, tmp_path, jobs=2)
    for seen in sweep.steps():
        words.append(seen.line)
        if len(sweep.records) >= 4 and not killed:  # two of twelve blocks came back
            killed = int(sweep.records[-1]["worker"].rpartition(":")[2])
            os.kill(killed, signal.SIGKILL)
    sweep.close()
    assert any("a worker died" in line for line in words)
    done = [(r["cell"], r["prompt"], r["repeat"]) for r in sweep.records if r["state"] == "done"]
    assert len(done) == len(set(done)) == len(sweep.records) == 2 * 3 * 4
    by = {r["worker"] for r in sweep.records}
    assert len(by) >= 3 and f":{os.getpid()}" not in "".join(by), "a new one took over"
    assert not any(r["worker"].endswith(f":{killed}") for r in sweep.records[-4:])
    pairs = {(r["prompt"], r["repeat"], r["worker"]) for r in sweep.records}
    assert len(pairs) == 12, "plain and drafted were measured by the same worker"


def blocks(count: int) -> list[Block]:
    cells = grid().expanded()[0]
    pending = frozenset((c.id, p.name) for c in cells for p in PROMPTS.prompts)
    return [
        Block(
            Setting(4), cells, ((place, PROMPTS.prompts[place]),), 0, pending & here(place, cells)
        )
        for place in range(count)
    ]


def here(place: int, cells) -> frozenset:
    return frozenset((c.id, PROMPTS.prompts[place].name) for c in cells)


def test_a_block_that_kills_every_worker_is_given_up_and_the_others_are_measured():
    """The pool in place of joblib's: whoever takes block b dies, and all others with it."""
    sent: list[int] = []

    def receive(left, jobs):
        sent.append(len(left))
        if any(block.prompts[0][1].name == "b" for block in left):
            raise BrokenProcessPool("gone")
        for block in left:
            yield block, [{"state": "done"}]

    told: list[str] = []
    got = {b.prompts[0][1].name: r for b, r in each_block(blocks(3), 2, told.append, receive)}
    assert set(got) == {"a", "b", "c"} and got["a"] == got["c"] == [{"state": "done"}]
    assert [r["state"] for r in got["b"]] == ["failed", "failed"]
    assert f"its worker died {STRIKES + 1} times" in got["b"][0]["error"]
    assert len(told) == STRIKES + 1 and sent == [3, 3, 3, 1, 1, 1]


def named(block: Block) -> tuple[Block, list[dict]]:
    """In place of ``run_block``: no model is needed to see who measured what."""
    return block, [{"state": "done", "prompt": block.prompts[0][1].name, "pid": os.getpid()}]


def test_a_backend_that_gives_results_only_together_keeps_its_processes(monkeypatch):
    """As Ray's does; the standard library's pool stands in for it."""
    import joblib

    monkeypatch.setattr(workers, "run_block", named)
    with joblib.parallel_config(backend="multiprocessing", n_jobs=2):
        got = [records[0] for _, records in each_block(blocks(3), 2)]
    assert sorted(record["prompt"] for record in got) == ["a", "b", "c"]
    pids = {record["pid"] for record in got}
    assert len(pids) <= 2 and os.getpid() not in pids


def test_another_error_is_not_taken_for_a_death():
    def receive(left, jobs):
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        list(each_block(blocks(1), 1, receive=receive))


def test_backends_that_cannot_be_used(monkeypatch):
    with pytest.raises(BadInput, match="Did you mean 'loky'"), pool("lokky", 2):
        pass
    with pytest.raises(BadInput, match="loky has none; choose backend dask or ray"):
        with pool("loky", 2, "tcp://127.0.0.1:1"):
            pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match="needs ray, which is not installed: pip install ray"):
        with pool("ray", 2):
            pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BadInput, match=r"pip install 'draft-workbench\[cluster\]'"):
        with pool("dask", 2):
            pass
