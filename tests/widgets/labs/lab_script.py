"""A scripted engine for the labs: real settings, real traces, no model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import msgspec

from widgets.labs.decode.engine import Engine, NodeLaws
from widgets.views.packed import KEY
from workbench.core.errors import BadInput, ModelError
from workbench.core.trace import Baseline, Forwards, Limits, Method, Ms, Round, Top, Trace

LONG_S = 60.0  # a wait that only a failure uses up; a busy machine needs a few seconds
SMALL_ARENA = {"drafters": ("prompt_lookup",), "new_tokens": 6, "repeats": 2, "per_kind": 1}
PIECES = {0: "def", 1: " f", 2: "(", 3: "x", 4: "):", 5: "\n", 6: " return", 7: "y"}


def unpacked(data: dict) -> dict:
    """What a view's page makes of its packed data."""
    return json.loads(data[KEY]) if KEY in data else dict(data)


def make_round(index: int, start: int = 4) -> Round:
    """Root 4 with children 5 (kept), 7; under 5: 6 (refused), 3 (refused), 1 below 6."""
    law = Top([5, 6, 7], [0.6, 0.3, 0.1])
    return Round(
        index=index,
        start=start,
        root=4,
        tokens=[5, 7, 6, 3, 1],
        parent=[-1, -1, 0, 0, 2],
        drawn="without_replacement",
        accept=[0.9, 0.05, 0.4, 0.1, 0.5],
        stop=[0.05, 0.45, 0.05, 0.2, 0.05, 0.2],
        uniform=0.3,
        path=[0],
        bonus=7,
        emitted=[5, 7],
        budget=Limits(3, 5, 2),
        ms=Ms(1.0, 3.0, 0.2, 0.3),
        forwards=Forwards(1, 2),
        p_node=[0.6, 0.1, 0.2, 0.1, 0.3],
        q_node=[0.5, 0.3, 0.5, 0.2, 0.3],
        p_top=[law] * 6,
        q_top=[law] * 5,
    )


def undrafted(index: int) -> Round:
    """A round for which nothing was drafted, as the last ones of a run often are."""
    nothing = dict(tokens=[], parent=[], accept=[], path=[], p_node=[], q_node=[], q_top=[])
    one = dict(stop=[1.0], emitted=[7, 7], p_top=[Top([7, 6], [0.9, 0.1])])
    return msgspec.structs.replace(make_round(index, 4 + 2 * index), **nothing, **one)


def make_trace(rounds: int, **changes) -> Trace:
    values = dict(
        model="scripted:target",
        device="cpu",
        dtype="float32",
        drafter=Method("draft_model", {"siblings": 2}),
        verifier=Method("multi_round"),
        policy=Method("fixed", {"depth": 3}),
        sampling={"temperature": 0.8, "top_k": 0, "top_p": 1.0, "seed": 3},
        prompt="def f(x",
        prompt_tokens=[0, 1, 2, 3],
        rounds=[make_round(i, 4 + 2 * i) for i in range(rounds)],
        pieces=PIECES,
        draft_model="scripted:draft",
        max_new_tokens=2 * rounds,
        finish="length",
    )
    return Trace(**{**values, **changes})


class ScriptedRun:
    """Behaves as a live run: one round every ``gap_s``, in a thread, from a script.

    As in the real one every change of state happens under one condition and an end is final, so
    that verbs from many threads cannot bring an ended run back to life.
    """

    ENDS = ("finished", "stopped", "failed")

    def __init__(
        self, settings: dict, listener=None, *, total=6, gap_s=0.01, fail_at=None, before_round=None
    ):
        self.settings, self._listener = settings, listener or (lambda: None)
        self._total, self._gap_s, self._fail_at = total, gap_s, fail_at
        self._before_round = before_round or (lambda: None)
        self.state, self.error, self._done = "idle", None, 0
        self._condition, self._stopping, self._single = threading.Condition(), False, False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self):
        self._go_on(single=False)

    def step(self):
        self._go_on(single=True)

    def _go_on(self, single):
        with self._condition:
            if self.state in self.ENDS:
                return
            self._single, self.state = single, "running"
            if self._thread.ident is None:
                self._thread.start()
            self._condition.notify_all()

    def pause(self):
        with self._condition:
            if self.state == "running":
                self.state = "paused"

    def stop(self):
        with self._condition:
            self._stopping = True
            if self.state == "idle":
                self.state = "stopped"
            self._condition.notify_all()

    def wait(self, timeout_s):
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return self.state in self.ENDS

    @property
    def trace(self):
        made = make_trace(self._done, max_new_tokens=2 * self._total)
        if self._done < self._total:
            return made
        return made.with_(rounds=[*made.rounds[:-1], undrafted(self._done - 1)])

    @property
    def progress(self):
        return SimpleNamespace(done=2 * self._done, total=2 * self._total, eta_s=1.0)

    def _next_state(self):
        """One round of the script; what the run is in afterwards."""
        with self._condition:
            self._condition.wait_for(lambda: self.state == "running" or self._stopping)
            if self._stopping:
                self.state = "stopped"
            elif self._fail_at == self._done:
                self.state, self.error = "failed", "layer 3 produced NaN"
            else:
                self._done += 1
                if self._done == self._total:
                    self.state = "finished"
                elif self._single:
                    self.state = "paused"
            return self.state

    def _work(self):
        while True:
            self._before_round()
            state = self._next_state()
            self._listener()
            if state in self.ENDS:
                return
            time.sleep(self._gap_s)


def until(condition, timeout_s: float = LONG_S) -> None:
    """Wait for ``condition``, as long as a busy machine may need."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the lab did not get there in time"
        time.sleep(0.005)


@dataclass
class Script:
    """What the scripted engine does, and what it was asked."""

    total: int = 6
    gap_s: float = 0.01
    before_round: Callable[[], object] = lambda: None
    fail_at: int | None = None
    baseline_error: str = ""
    asked: list = field(default_factory=list)
    loaded: list = field(default_factory=list)
    baselines: int = 0

    def engine(self) -> Engine:
        return Engine(self._load, self._run, self._settings, self._baseline, self._laws)

    def slow_engine(self, gate: threading.Event) -> Engine:
        """One whose models arrive once the gate is open."""
        load = self._load
        return Engine(
            lambda name: (gate.wait(LONG_S), load(name))[1],
            self._run,
            self._settings,
            self._baseline,
            self._laws,
        )

    def _load(self, name, device="cpu"):
        self.loaded.append((name, device))
        if "missing" in name:
            raise ModelError(f"model={name!r}: no such folder; check the path")
        return SimpleNamespace(
            name=name, parameters=10_400_000, dtype="float32", device=device, precision=""
        )

    def _settings(self, **values):
        if len(values["prompt"]) > 100:
            raise BadInput("prompt has 120 tokens, more than the 64 that t can hold; shorten it")
        self.asked.append(values)
        return values

    def _run(self, settings, listener):
        rest = dict(
            total=self.total, gap_s=self.gap_s, fail_at=self.fail_at, before_round=self.before_round
        )
        return ScriptedRun(settings, listener, **rest)

    def _baseline(self, model, prompt, sampling, tokens, repeats, progress):
        self.baselines += 1
        progress(0.5)
        if self.baseline_error:
            raise RuntimeError(self.baseline_error)
        return Baseline(tokens, 4.0, 3.8, 4.2)

    def _laws(self, round_, node):
        return NodeLaws({"multi_round": round_.accept[node], "other": 0.99}, 0.81, 0.94, 2)
