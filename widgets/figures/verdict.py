"""The sentence that never flatters: does speculation pay, which cost is to blame, what to do."""

from __future__ import annotations

from typing import NamedTuple

from widgets import theme
from workbench.core.trace import Trace


class Cost(NamedTuple):
    """Milliseconds a round beyond one plain token, by where they went, and the remedy."""

    name: str
    ms: float
    remedy: str


def extra_costs(trace: Trace) -> list[Cost]:
    """What a mean round costs beyond one plain token, largest first.

    Needs rounds and a baseline. The parts add up to ``ms of a round - ms of a plain token``; a part
    is negative where it is cheaper than in plain decoding.
    """
    assert trace.baseline is not None
    count, plain_ms = len(trace.rounds), trace.baseline.ms_per_token
    mean = {
        part: sum(getattr(r.ms, part) for r in trace.rounds) / count
        for part in ("draft", "verify", "commit", "other")
    }
    nodes = sum(len(r.tokens) for r in trace.rounds) / count
    forwards = sum(r.forwards.draft for r in trace.rounds) / count
    shorter = "draft fewer tokens a round" if forwards else "use a cheaper drafter"
    smaller = " or with a smaller draft model" if forwards else " or fewer nodes"
    costs = [
        Cost("drafting", mean["draft"], f"{shorter}{smaller}"),
        Cost(
            f"checking {nodes:.0f} nodes at once",
            mean["verify"] - plain_ms,
            "propose fewer nodes, or run where a wider forward costs no more (a GPU)",
        ),
        Cost(
            "bookkeeping outside the models",
            mean["commit"] + mean["other"],
            "use a larger target, so that it weighs less, or smaller trees",
        ),
    ]
    return sorted(costs, key=lambda cost: -cost.ms)


def verdict_sentence(trace: Trace) -> str:
    """One or two plain sentences on whether speculation pays in this run, and if not, why."""
    if not trace.new_tokens:
        return "Nothing has been generated yet."
    if trace.baseline is None or trace.baseline.ms_per_token <= 0:
        return (
            "Plain decoding was not measured in this session, so whether speculation pays"
            " is not known."
        )
    if not any(r.tokens for r in trace.rounds):
        return "Nothing was drafted: this is plain decoding itself, so there is nothing to gain."
    summary, plain = trace.summary, trace.baseline
    per_ms = summary["new_tokens"] / summary["ms"]
    ratio = per_ms * plain.ms_per_token
    low, high = per_ms * (plain.ms_low or plain.ms_per_token), per_ms * plain.ms_high
    needed = summary["ms"] / summary["rounds"] / plain.ms_per_token
    gives = summary["mean_emitted"]
    interval = f"({low:.2f} to {high:.2f})"
    if low > 1:
        return (
            f"Speculation pays: {theme.times(ratio)} plain decoding {interval}. A round takes as"
            f" long as {needed:.2f} plain tokens and gives {gives:.2f}."
        )
    if high >= 1:
        return (
            f"Too close to call: {theme.times(ratio)} plain decoding {interval}. A round takes as"
            f" long as {needed:.2f} plain tokens and gives {gives:.2f}."
        )
    return (
        f"Speculation loses: {theme.times(ratio)} plain decoding {interval}. A round takes as long"
        f" as {needed:.2f} plain tokens but gives {gives:.2f}. {_blame(trace)}"
    )


def _blame(trace: Trace) -> str:
    """Acceptance where almost nothing is kept, else the largest extra cost."""
    summary = trace.summary
    worst = extra_costs(trace)[0]
    extra = sum(cost.ms for cost in extra_costs(trace))
    kept = f"{summary['mean_accepted']:.2f} drafted tokens a round"
    if summary["acceptance_ratio"] < 0.1:
        return (
            f"The draft is to blame: only {kept} are kept, so even a cheap round cannot pay."
            " Try a drafter that fits this text better, a lower temperature, or a shorter draft."
        )
    return (
        f"The largest extra cost is {worst.name}: {theme.milliseconds(worst.ms)} of the"
        f" {theme.milliseconds(extra)} that a round takes beyond a plain token, with {kept} kept."
        f" To change that, {worst.remedy}."
    )
