"""What the labs cost: pictures of long traces, and a live lab against the bare run.

``workbench bench performance`` puts both into its page.
"""

from __future__ import annotations

import importlib
import itertools
import json
import pkgutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

import widgets.figures
from widgets.labs.decode.controller import DecodeController
from widgets.labs.decode.engine import Engine, engine
from workbench.core.trace import Trace

LENGTHS = (10, 100, 1000, 10_000)
HOSTS, LIVE_TOKENS = ("JupyterLab", "Panel"), (160, 400)
PROMPT = "def read(path):\n"
IDLE_S = 0.4  # longer than two flushes of a lab are apart


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


class Clocked:
    """The workbench's engine, but with the moments of a run's rounds and its settings kept."""

    def __init__(self) -> None:
        self._real = engine()
        self.settings: Any = None
        self.moments: list[float] = []

    def run(self, settings: Any, listener: Callable[[], None]) -> Any:
        """A live run that notes when its listener is called: at its start and after each round."""
        self.settings, self.moments = settings, []

        def heard() -> None:
            self.moments.append(time.perf_counter())
            listener()

        return self._real.run(settings, heard)

    @property
    def tools(self) -> Engine:
        return replace(self._real, run=self.run)


def _apart_ms(moments: Sequence[float]) -> float:
    return (moments[-1] - moments[0]) / (len(moments) - 1) * 1e3


def _bare_ms(settings: Any) -> float:
    """Milliseconds from round to round of a run that nobody looks at."""
    from workbench.engine.run import generate

    moments: list[float] = []
    generate(settings, lambda done: moments.append(time.perf_counter()))
    return _apart_ms(moments)


def live_slowdown(
    model: Any, prompt: str, tokens: int = 160, repeats: int = 5, host: str = "JupyterLab"
) -> dict[str, Any]:
    """Time from round to round of a run in a live lab against the same run alone, interleaved.

    The lab is built whole and draws, but no page is connected: what a browser would be sent is
    made and put, not sent.

    Returns:
        The median ratio of the repeats, and all of them (1.05 = the lab makes decoding 5 % slower),
        the bare milliseconds of a round, and how often the lab drew in a second of the run.
    """
    clocked = Clocked()
    lab = DecodeController(
        model, None, prompt, tools=clocked.tools, max_new_tokens=tokens, drafter="token_recycling"
    )
    view, ratios, bare_ms, rates = _view(host, lab), [], [], []
    drawn = _count_draws(lab)
    try:
        lab.start()  # measures plain decoding as well, and warms up
        lab.wait(120)
        before_ms = _bare_ms(clocked.settings)
        for _ in range(repeats):
            time.sleep(IDLE_S)  # so that the first draw of a run is not held up by the last one's
            drawn.clear()
            lab.start()
            lab.wait(120)
            count, moments = len(drawn), clocked.moments[1:]
            time.sleep(IDLE_S)  # what is drawn at the end is drawn by now
            after_ms = _bare_ms(clocked.settings)
            ratios.append(_apart_ms(moments) / statistics.fmean((before_ms, after_ms)))
            bare_ms.append(before_ms)
            rates.append(count / (moments[-1] - moments[0]))
            before_ms = after_ms
    finally:
        lab.close()
        view.close()
    found = {"ratio": ratios, "bare_ms": bare_ms, "draws_per_s": rates}
    return {"ratios": ratios, **{name: statistics.median(all_) for name, all_ in found.items()}}


def _view(host: str, lab: DecodeController) -> Any:
    if host == "JupyterLab":
        from widgets.labs.decode.jupyter import JupyterView

        return JupyterView(lab)
    from widgets.labs.decode.panel import DecodePanel

    return DecodePanel(lab)


def _count_draws(lab: DecodeController) -> list[None]:
    """A list that grows with each draw while a run is going: a draw looks at the lab once."""
    drawn: list[None] = []
    look = lab.view

    def counted() -> Any:
        found = look()
        drawn.extend([None] * (found.state == "running"))
        return found

    lab.view = counted  # type: ignore[method-assign]
    return drawn


def labs_table(repeats: int) -> dict[str, Any]:
    """Both measurements on the recorded run and the embedded target, as one table with notes."""
    from widgets.labs.decode.recorded import recorded_trace
    from workbench.models.load import load

    trace = recorded_trace()
    assert trace is not None  # it is part of the package
    model, notes = load("zoo:target"), []
    for host, tokens in itertools.product(HOSTS, LIVE_TOKENS):
        live = live_slowdown(model, PROMPT, tokens, max(5, repeats), host)
        spread = ", ".join(f"{ratio:.2f}" for ratio in sorted(live["ratios"]))
        notes.append(
            f"Live in {host}, {tokens} tokens: {live['ratio']:.2f} x the bare run's time"
            f" ({spread}; a bare round {live['bare_ms']:.1f} ms,"
            f" {live['draws_per_s']:.1f} draws a second)."
        )
    return {"rows": by_rounds(trace), "notes": notes}
