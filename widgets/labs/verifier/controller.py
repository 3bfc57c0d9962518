"""The verifier lab without its looks: two laws, the rules on them, one rule audited.

No UI library is imported here. Every verb may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from widgets import theme
from widgets.controls.form import Field
from widgets.figures import refill, rule_acceptance
from widgets.labs import frame
from widgets.labs.board import Cell, Section
from widgets.labs.history import History
from widgets.labs.verifier.audits import audit_html, run_knobs
from widgets.labs.verifier.live_audit import LiveAudit
from workbench.bench.audit import Audit, audit_verifier
from workbench.bench.lossless import every_verifier
from workbench.bench.rules import MOST_SIBLINGS, SCHEMES, RuleOutcome, compare_rules, optimum
from workbench.core.errors import BadInput, WorkbenchError
from workbench.core.method import Knob
from workbench.core.trace import Round, Trace
from workbench.testing.saboteurs import WRONG_VERIFIERS

TOKENS = 5  # shown of a recorded law; the last stands for all other tokens
AUDITED_TOKENS = 4  # a tree of four nodes over five tokens takes seconds to enumerate
EXAMPLE = (
    ("self", "name", "None", "(", "other"),
    (0.42, 0.27, 0.15, 0.10, 0.06),
    (0.22, 0.12, 0.40, 0.08, 0.18),
)
SAMPLER_NAMES = {
    "independent": "independent (SpecInfer, SpecTr)",
    "without_replacement": "without replacement (RSD)",
    "top_plus_one": "top tokens and one draw",
}


def _knob(name: str, kind: str, default: Any, help: str, **more: Any) -> Knob:
    return Knob(name, kind, default, help=help, **more)


class VerifierLab:
    """State of one verifier lab.

    Args:
        trace: a recorded run to take laws from; None opens on an example.
        p, q, labels: laws to begin with, 2 to 5 tokens.

    Raises:
        BadInput: laws that are none, or of different lengths.
    """

    title = "Verifier lab"
    buttons: Mapping[str, str] = {"audit_run": "▶ Audit a run", "stop": "■ Stop"}
    knobs: Mapping[str, str] = {"undo": "↶ Undo", "redo": "↷ Redo", "reset": "Reset"}
    bands: tuple[tuple[Cell, ...], ...] = (
        (Cell("laws", "bars", 250, 1.0), Cell("rules", "plot", 290, 1.25)),
        (Cell("emits", "plot", 240, 1.0), Cell("audit", "html", 260, 1.25)),
    )
    accepts = ".json"

    def __init__(
        self,
        trace: Trace | None = None,
        *,
        p: Sequence[float] | None = None,
        q: Sequence[float] | None = None,
        labels: Sequence[str] | None = None,
    ):
        self._verifiers = {verifier.name: verifier for verifier in every_verifier()}
        self._trace, self._error = trace, ""
        first_p, first_q = tuple(p or EXAMPLE[1]), tuple(q or EXAMPLE[2])
        if len(first_p) != len(first_q) or not 2 <= len(first_p) <= TOKENS:
            raise BadInput(f"p has {len(first_p)} and q {len(first_q)} tokens; give 2 to {TOKENS}")
        names = tuple(labels or (EXAMPLE[0] if p is None else map(str, range(len(first_p)))))
        optimum(first_p, first_q, 1, "independent")  # refuses what is no law
        self.sections = self._sections()
        defaults = {f.key: f.knob.default for s in self.sections for f in s.fields}
        laws = {"p": _normal(first_p), "q": _normal(first_q), "labels": names}
        self.history = History({**defaults, **laws})
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []
        self._made: dict[tuple, Any] = {}
        self.live = LiveAudit(self._mark)
        if trace is not None:
            self._take_round(self._telling_round())

    @property
    def titles(self) -> Mapping[str, Mapping[Any, str]]:
        wrong = {v.name for v in WRONG_VERIFIERS}
        names = {
            name: f"✗ {name.replace('_', ' ')} (wrong)" if name in wrong else v.card.title
            for name, v in self._verifiers.items()
        }
        return {"rule": names, "sampler": SAMPLER_NAMES}

    def _sections(self) -> tuple[Section, ...]:
        rules = tuple(self._verifiers)
        drafts = (
            _knob("siblings", "int", 2, "Siblings drafted.", low=1, high=MOST_SIBLINGS),
            _knob(
                "sampler", "choice", "independent", "How they are drawn.", choices=tuple(SCHEMES)
            ),
        )
        one = (
            _knob("rule", "choice", "multi_round", "The rule looked at below.", choices=rules),
            _knob("saboteurs", "bool", False, "Show the rules that are wrong on purpose, too."),
        )
        groups = [("Drafts", drafts), ("Verification rule", one), ("Audit of a run", run_knobs())]
        if self._trace is not None:
            most = max(0, len(self._trace.rounds) - 1)
            place = (_knob("round", "int", 0, "Round whose root gives p and q.", low=0, high=most),)
            groups.insert(0, ("Laws of a recorded run", place))
        return tuple(
            Section(title, tuple(Field(knob.name, knob, "lab") for knob in knobs))
            for title, knobs in groups
        )

    # ---- reading -------------------------------------------------------------------------------

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.history.now

    def outcomes(self) -> list[RuleOutcome]:
        """What every rule shown does with the laws of now."""
        now = self.settings
        wrong = {verifier.name for verifier in WRONG_VERIFIERS}
        shown = [
            verifier
            for name, verifier in self._verifiers.items()
            if now["saboteurs"] or name not in wrong or name == now["rule"]
        ]
        key = (
            "rules",
            now["p"],
            now["q"],
            now["siblings"],
            now["sampler"],
            len(shown),
            now["rule"],
        )
        return self._once(
            key,
            lambda: compare_rules(now["p"], now["q"], now["siblings"], now["sampler"], shown),
        )

    def best(self) -> float:
        """The optimum for the laws of now."""
        now = self.settings
        drafts = (now["p"], now["q"], now["siblings"], now["sampler"])
        return self._once(("best", *drafts), lambda: optimum(*drafts))

    def audit(self) -> Audit:
        """The chosen rule, audited on the likeliest tokens of the laws of now."""
        now = self.settings
        p, q = _short(now["p"]), _short(now["q"])
        key = ("audit", now["rule"], p, q)
        return self._once(key, lambda: audit_verifier(self._verifiers[now["rule"]], p, q))

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._made:
                if len(self._made) > 200:
                    self._made.clear()
                self._made[key] = make()
            return self._made[key]

    def contents(self) -> dict[str, Any]:
        """Everything that is shown."""
        with self._lock:
            now, outcomes = self.settings, self.outcomes()
            chosen = next(rule for rule in outcomes if rule.name == now["rule"])
            laws = {"labels": list(now["labels"]), "p": list(now["p"]), "q": list(now["q"])}
            return {
                "head": frame.head_html("Verifier lab", self._from()),
                "progress": self.live.progress_html(),
                "error": frame.error_html(self._error),
                "laws": {"data": {"title": "Target p and draft q", **laws}},
                "rules": rule_acceptance.figure(self._bars(outcomes)),
                "emits": refill.figure(self._refill(chosen)),
                "audit": audit_html(self.audit(), self.live),
            }

    def _from(self) -> str:
        if self._trace is None:
            return "laws of your own"
        return f"laws of round {self.settings['round'] + 1} of a run of {self._trace.model}"

    def _bars(self, outcomes: list[RuleOutcome]) -> rule_acceptance.RuleBars:
        now = self.settings
        bars = tuple(
            rule_acceptance.RuleBar(
                rule.name,
                self.titles["rule"][rule.name],
                None if rule.refusal else rule.accepted,
                rule.variation,
                rule.lossless,
                rule.name == now["rule"],
            )
            for rule in sorted(outcomes, key=lambda rule: bool(rule.refusal))
        )
        many = f"{now['siblings']} sibling{'s' * (now['siblings'] > 1)}"
        drawn = SAMPLER_NAMES[now["sampler"]].partition(" (")[0]
        return rule_acceptance.RuleBars(bars, self.best(), f"{many}, {drawn}")

    def _refill(self, rule: RuleOutcome) -> refill.Refill:
        now = self.settings
        return refill.Refill(
            self.titles["rule"][rule.name],
            tuple(now["labels"]),
            tuple(rule.kept.tolist()),
            tuple(rule.redrawn.tolist()),
            tuple(now["p"]),
            rule.variation,
            rule.refusal,
        )

    def verbs(self) -> frozenset[str]:
        found = {"reset", "stop" if self.live.busy else "audit_run"}
        found |= {"undo"} if self.history.can_undo else set()
        found |= {"redo"} if self.history.can_redo else set()
        return frozenset(found)

    # ---- verbs ---------------------------------------------------------------------------------

    def change(self, key: str, value: Any) -> bool:
        """Change one setting; a bad value becomes a message and the old one stays."""
        fields = {f.key: f for s in self.sections for f in s.fields}
        with self._lock:
            try:
                if key not in fields:
                    raise BadInput(f"{key}={value!r}: no such setting of this lab")
                value, self._error = fields[key].check(value), ""
                if key == "round":
                    self._take_round(value)
                else:
                    self.history.put(key, value)
            except WorkbenchError as error:
                self._error = str(error)
        self._mark()
        return not self._error

    def set_bar(self, law: str, index: int, value: float) -> None:
        """Give one token a probability; the others share the rest in their old proportions."""
        if law not in ("p", "q") or not 0 <= index < len(self.settings[law]):
            raise BadInput(f"bar {law}[{index}]: p or q, 0 to {len(self.settings['p']) - 1}")
        if not 0 <= value <= 1:
            raise BadInput(f"{law}[{index}]={value!r}: must lie in [0, 1]")
        with self._lock:
            old = list(self.settings[law])
            rest = sum(old) - old[index]
            count = len(old) - 1
            for place in range(len(old)):
                if place != index:
                    share = old[place] / rest if rest > 0 else 1 / count
                    old[place] = share * (1 - value)
            old[index] = value
            self.history.put(law, tuple(old))
        self._mark()

    def handle(self, cell: str, event: Mapping[str, Any]) -> None:
        """A dragged bar, or a click on a rule."""
        if event.get("kind") == "bar":
            try:
                self.set_bar(event["law"], int(event["index"]), float(event["value"]))
            except (WorkbenchError, KeyError, TypeError, ValueError):
                return  # not one of ours
        elif cell == "rules" and event.get("customdata") in self._verifiers:
            self.change("rule", event["customdata"])

    def undo(self) -> None:
        self._travel(self.history.undo)

    def redo(self) -> None:
        self._travel(self.history.redo)

    def reset(self) -> None:
        self._travel(self.history.reset)

    def _travel(self, step: Callable[[], Any]) -> None:
        with self._lock:
            step()
            self._error = ""
        self._mark()

    def audit_run(self) -> None:
        """Audit a run of the embedded models with the chosen rule; returns at once."""
        now = self.settings
        self.live.start(self._verifiers[now["rule"]], now)

    def stop(self) -> None:
        self.live.stop()

    def open(self, data: bytes, name: str) -> bool:
        """Take the laws from a saved trace."""
        try:
            trace = Trace.from_json(data, name)
            self._trace = trace
            self.sections = self._sections()
            self._take_round(self._telling_round())
            self._error = ""
        except WorkbenchError as error:
            self._error = str(error)
        self._mark()
        return not self._error

    def _telling_round(self) -> int:
        """The round whose laws overlap least: there the rules differ most."""
        assert self._trace is not None
        overlap = {}
        for place, done in enumerate(self._trace.rounds):
            if done.q_node is not None and done.p_top and done.parent:
                _, p, q = laws_of_round(self._trace, done)
                overlap[place] = sum(map(min, p, q))
        if not overlap:
            raise BadInput("this run holds no drawn drafts with their laws; record one at T > 0")
        return min(overlap, key=overlap.__getitem__)

    def _take_round(self, place: int) -> None:
        assert self._trace is not None
        done = self._trace.rounds[place]
        labels, p, q = laws_of_round(self._trace, done)
        self.history.replace({**self.settings, "round": place, "labels": labels, "p": p, "q": q})

    def listen(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners.append(listener)

    def _mark(self) -> None:
        for listener in list(self._listeners):
            listener()

    def close(self) -> None:
        """Stop what runs and forget the listeners."""
        self._listeners.clear()
        self.live.stop()


def laws_of_round(trace: Trace, done: Round) -> tuple[tuple, tuple, tuple]:
    """Labels, p and q at a round's root: its likeliest tokens, the rest as one.

    Raises:
        BadInput: a round whose tokens were chosen, or that was recorded without laws.
    """
    eldest = next((n for n, above in enumerate(done.parent) if above == -1), None)
    if eldest is None or done.q_node is None or not done.p_top or not done.q_top:
        raise BadInput(
            f"round {done.index + 1}: its drafts were chosen, or no laws were kept; choose a round"
            " with drawn drafts"
        )
    p = dict(zip(done.p_top[0].ids, done.p_top[0].probs, strict=True))
    q = dict(zip(done.q_top[eldest].ids, done.q_top[eldest].probs, strict=True))
    ranked = sorted({*p, *q}, key=lambda t: -max(p.get(t, 0.0), q.get(t, 0.0)))[: TOKENS - 1]
    mine = [p.get(token, 0.0) for token in ranked]
    theirs = [q.get(token, 0.0) for token in ranked]
    labels = (*(theme.visible(trace.piece(token)) for token in ranked), "all others")
    rest = (max(0.0, 1 - sum(mine)), max(0.0, 1 - sum(theirs)))
    return labels, _normal((*mine, rest[0])), _normal((*theirs, rest[1]))


def _normal(law: Sequence[float]) -> tuple[float, ...]:
    total = sum(law)
    return tuple(float(x) / total for x in law)


def _short(law: Sequence[float]) -> tuple[float, ...]:
    """The first tokens, the last of them with all the rest."""
    if len(law) <= AUDITED_TOKENS:
        return tuple(law)
    return (*law[: AUDITED_TOKENS - 1], sum(law[AUDITED_TOKENS - 1 :]))
