"""What the arena's worker thread does: measure the cost of passes, and search for a preset."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from widgets.labs.arena import plan
from widgets.labs.worker import Task
from workbench.bench.cost_model import CostReport, cost_report
from workbench.bench.measurement import model_of
from workbench.bench.preset import Preset
from workbench.bench.search import Search
from workbench.bench.turn import Turn
from workbench.core.decoding import Need
from workbench.core.errors import BadInput
from workbench.core.method import make_method
from workbench.engine.run import RunSettings


class Shift:
    """A task's turn to measure: waited for before it begins and after a pause, left in a pause.

    Args:
        what: what others are told that they wait for.
        told: hears whom it waits for; empty = nobody any more.
    """

    def __init__(self, task: Task, what: str, told: Callable[[str], None]):
        self.task, self.turn, self._told = task, Turn(what), told
        task.resting = self.turn.leave

    def __enter__(self) -> Callable[[], None]:
        return self._wait

    def __exit__(self, *error: object) -> None:
        self.turn.leave()
        self._told("")

    def _wait(self) -> None:
        if self.turn.taken():
            return
        self.turn.wait(self._waits, self._slept)
        self._told("")

    def _waits(self, holder: str) -> None:
        self._told(holder)
        self.task.tell("Waiting for its turn")

    def _slept(self, seconds: float) -> None:
        time.sleep(seconds)
        self.task.check()


def measured_cost(
    settings: Mapping[str, Any],
    progress: Callable[[float], None],
    turn: Callable[[], None] = lambda: None,
) -> CostReport:
    """Curves, acceptance by rank, and sizes that are really run.

    Args:
        turn: returns when it may measure, or go on.

    Raises:
        BadInput: a drafter that needs a draft model, and none named.
    """

    def step(share: float) -> None:
        progress(share)
        turn()

    torch.set_num_threads(1)
    prompts = [prompt.text for prompt in plan.prompts(settings).prompts]
    target = model_of(plan.first(settings, "targets"), None, None)
    drafter = make_method("drafter", settings["cost_drafter"])
    draft = None
    if drafter.needs & {Need.DRAFT, Need.LEARNER}:
        named = plan.words(settings["draft"])
        if not named:
            raise BadInput(
                f"draft is empty, and {settings['cost_drafter']} needs one; name a checkpoint"
            )
        draft = model_of(named[0], plan.draft_devices(settings)[0] or None, None)
    run = RunSettings(
        target,
        prompts[0],
        drafter,
        settings["cost_verifier"],
        "fixed",
        plan.samplings(settings["temperatures"])[0],
        settings["new_tokens"],
        draft,
    )
    step(0.0)
    return cost_report(run, prompts, repeats=settings["cost_repeats"], progress=step)


def tuned(
    search: Search,
    folder: Path,
    task: Task,
    told: Callable[[list[dict[str, Any]]], None],
    turn: Callable[[], None],
) -> Preset | None:
    """Search to the end, which may be paused or stopped; ``told`` hears every trial so far.

    Args:
        turn: returns when it may measure.
    """
    from workbench.bench.tuning import Tuner  # brings optuna, which only a search needs

    tuner = Tuner(search, folder, plan.tune_command(search, folder))
    try:
        told(tuner.history())
        steps = tuner.steps()
        while True:
            turn()
            seen = next(steps, None)
            if seen is None:
                return tuner.preset
            told(tuner.history())
            left = "" if seen.eta_s is None else f" · {seen.eta_s:.0f} s left"
            share = min(0.99, seen.done / max(1, seen.total))
            task.tell(f"{seen.done} of {seen.total} trials{left}", share)
    finally:
        tuner.close()
