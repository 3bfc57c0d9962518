"""What the arena opens on: three drafters and two rules, what passes cost, and a search.

Record it again with ``python -m widgets.labs.arena.recorded``, on a machine that does nothing else.
"""

from __future__ import annotations

import tempfile
from functools import cache
from typing import Any

import msgspec
import torch

from widgets.labs import recordings
from widgets.labs.arena.results import Results, of_arena
from workbench.bench.cost_model import CostReport

NAME = "arena.json"


class Recording(msgspec.Struct, frozen=True):
    """A sweep's results, a cost report of a drafter, and the trials of a search."""

    results: Results
    cost: CostReport
    drafter: str
    trials: list[dict[str, Any]]


@cache
def recording() -> Recording | None:
    """The recorded results; None where the package was installed without them."""
    return recordings.read(NAME, Recording)


def record() -> Recording:
    """Measure what the lab's own settings describe, with more kinds of prompt and rules."""
    from widgets.labs.arena import form, plan
    from widgets.labs.arena.work import measured_cost
    from workbench.bench.arena import Arena
    from workbench.bench.tuning import Tuner

    torch.set_num_threads(1)
    settings = {
        **form.defaults(),
        "prompts": "zoo",
        "per_kind": 1,
        "temperatures": "0.8",
        "verifiers": ("exact_match", "typical"),
        "knobs": "policy.nodes=4,16",
    }
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(plan.grid(settings), folder)
        arena.run()
        results = msgspec.structs.replace(of_arena(arena), folder="", said="recorded example")
    report = measured_cost({**form.defaults(), "per_kind": 3}, lambda share: None)
    with tempfile.TemporaryDirectory() as folder:
        tuner = Tuner(plan.search(form.defaults()), folder)
        for _ in tuner.steps():
            pass
        trials = tuner.history()
        tuner.close()
    kept = ("trial", "state", "ratio", "label", "reason", "drafter")
    rows = [{name: row.get(name) for name in kept} for row in trials]
    return Recording(results, report, form.defaults()["cost_drafter"], rows)


if __name__ == "__main__":
    recordings.write(NAME, record())
