"""What the labs cost: pictures of long traces, and a live lab against the bare run.

``workbench bench performance`` puts both into its page.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

import widgets.figures
from workbench.core.trace import Trace

LENGTHS = (10, 100, 1000, 10_000)


def longer(trace: Trace, rounds: int) -> Trace:
    """A trace of so many rounds, made of the given one's over and over."""
    start, done = len(trace.prompt_tokens), []
    for index in range(rounds):
        round_ = trace.rounds[index % len(trace.rounds)]
        done.append(msgspec.structs.replace(round_, index=index, start=start))
        start += len(round_.emitted)
    return msgspec.structs.replace(trace, rounds=done, max_new_tokens=max(1, start))


def trace_pictures() -> dict[str, Callable[[Trace], Any]]:
    """Every picture that is made of a whole trace, by name, each down to what is sent."""
    found: dict[str, Callable[[Trace], Any]] = {}
    for module in pkgutil.iter_modules(widgets.figures.__path__):
        picture = importlib.import_module(f"widgets.figures.{module.name}")
        info = getattr(picture, "info", None)
        wanted = list(getattr(info, "__annotations__", {}).values())[:1]
        if wanted == ["Trace"] and hasattr(picture, "figure"):
            found[module.name] = lambda trace, p=picture: p.figure(p.info(trace))
    return found


def _spent_ms(call: Callable[[], Any], repeats: int = 3) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1e3)
    return min(taken)


def by_rounds(trace: Trace, lengths: Sequence[int] = LENGTHS) -> list[dict[str, Any]]:
    """Milliseconds to read a trace and to draw each picture of it, and the largest picture."""
    rows = []
    for rounds in lengths:
        long = longer(trace, rounds)
        text = long.to_json()
        row: dict[str, Any] = {
            "rounds": rounds,
            "file_kb": len(text) / 1e3,
            "open_ms": _spent_ms(lambda text=text: Trace.from_json(text)),
        }
        largest = 0
        for name, draw in trace_pictures().items():
            row[f"{name}_ms"] = _spent_ms(lambda draw=draw, long=long: draw(long))
            largest = max(largest, len(json.dumps(draw(long), default=str)))
        rows.append({**row, "largest_kb": largest / 1e3})
    return rows


def live_slowdown(
    model: Any, prompt: str, tokens: int = 160, repeats: int = 5
) -> dict[str, float | list[float]]:
    """Milliseconds of a round in a live notebook lab against the bare run, interleaved.

    Returns:
        The median ratio of the repeats, and all of them; 1.05 = the lab makes decoding 5 % slower.
    """
    from widgets import DecodeLab
    from workbench.engine.run import RunSettings, generate

    settings = RunSettings(model, prompt, "token_recycling", max_new_tokens=tokens)
    lab = DecodeLab(model, prompt=prompt, max_new_tokens=tokens, drafter="token_recycling")
    assert lab.view is not None  # builds it: what is shown is drawn, though nobody looks
    ratios = []
    try:
        for repeat in range(repeats + 1):
            bare = statistics.fmean(r.ms.total for r in generate(settings).rounds[1:])
            lab.controller.start()
            lab.controller.wait(120)
            live = statistics.fmean(r.ms.total for r in lab.controller.trace.rounds[1:])
            if repeat:  # the first measures plain decoding and warms up
                ratios.append(live / bare)
    finally:
        lab.close()
    return {"ratio": statistics.median(ratios), "ratios": ratios}


def labs_table(repeats: int) -> dict[str, Any]:
    """Both measurements on the recorded run and the embedded target, as one table with notes."""
    from widgets.labs.decode.recorded import recorded_trace
    from workbench.models.load import load

    trace = recorded_trace()
    assert trace is not None  # it is part of the package
    live = live_slowdown(load("zoo:target"), "def read(path):\n", repeats=max(3, repeats))
    spread = ", ".join(f"{ratio:.2f}" for ratio in live["ratios"])
    return {
        "rows": by_rounds(trace),
        "notes": [f"A live lab takes {live['ratio']:.2f} x the bare run's time ({spread})."],
    }
