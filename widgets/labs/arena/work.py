"""What the arena's worker thread does: measure the cost of passes, and search for a preset."""

from __future__ import annotations

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
from workbench.core.decoding import Need
from workbench.core.errors import BadInput
from workbench.core.method import make_method
from workbench.engine.run import RunSettings


def measured_cost(settings: Mapping[str, Any], progress: Callable[[float], None]) -> CostReport:
    """Curves, acceptance by rank, and sizes that are really run.

    Raises:
        BadInput: a drafter that needs a draft model, and none named.
    """
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
        draft = model_of(named[0], None, None)
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
    return cost_report(run, prompts, repeats=settings["cost_repeats"], progress=progress)


def tuned(
    search: Search, folder: Path, task: Task, told: Callable[[list[dict[str, Any]]], None]
) -> Preset | None:
    """Search to the end, which may be paused or stopped; ``told`` hears every trial so far."""
    from workbench.bench.tuning import Tuner  # brings optuna, which only a search needs

    tuner = Tuner(search, folder)
    try:
        for seen in tuner.steps():
            told(tuner.history())
            left = "" if seen.eta_s is None else f" · {seen.eta_s:.0f} s left"
            share = min(0.99, seen.done / max(1, seen.total))
            task.tell(f"{seen.done} of {seen.total} trials{left}", share)
        return tuner.preset
    finally:
        tuner.close()
