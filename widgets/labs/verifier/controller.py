"""The verifier lab without its looks: two laws, the rules on them, one rule audited.

No UI library is imported here. Every verb may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from widgets.controls.form import Field
from widgets.figures import refill, rule_acceptance
from widgets.labs import frame
from widgets.labs.board import Cell, Section
from widgets.labs.decode.recorded import recorded_trace
from widgets.labs.history import History, Travels
from widgets.labs.verifier.audits import audit_html, run_knobs
from widgets.labs.verifier.compared import FITTING, SAMPLER_NAMES, Compared, compared
from widgets.labs.verifier.laws import (
    EXAMPLE,
    TOKENS,
    laws_of_round,
    moved,
    normal,
    shortened,
    telling_round,
)
from widgets.labs.verifier.live_audit import LiveAudit
from widgets.labs.verifier.rule_audit import RuleAudit
from workbench.bench.audit import Audit, audit_verifier
from workbench.bench.lossless import every_verifier
from workbench.bench.rules import MOST_SIBLINGS, optimum
from workbench.core.errors import BadInput, WorkbenchError
from workbench.core.method import Knob, methods
from workbench.core.trace import Trace
from workbench.testing.saboteurs import WRONG_VERIFIERS

LABELS = {"saboteurs": "show wrong rules too", "draws": "drafts"}


def _knob(name: str, kind: str, default: Any, help: str, **more: Any) -> Knob:
    return Knob(name, kind, default, help=help, **more)


class VerifierLab(Travels):
    """State of one verifier lab.

    Args:
        trace: a recorded run to take laws from; None opens on an example.
        p, q, labels: laws to begin with, 2 to 5 tokens.

    Raises:
        BadInput: laws that are none, or of different lengths.
    """

    title = "Verifier lab"
    buttons: Mapping[str, str] = {"audit_run": "▶ Audit a run", "stop": "■ Stop"}
    knobs: Mapping[str, str] = {
        "undo": "↶ Undo",
        "redo": "↷ Redo",
        "reset": "Reset",
        "take_recorded": "p and q of a recorded round",
    }
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
        laws = {"p": normal(first_p), "q": normal(first_q), "labels": names}
        self.history = History({**defaults, **laws, "round": 1})
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []
        self._made: dict[tuple, list[Compared]] = {}
        self.live, self.audits = LiveAudit(self._mark), RuleAudit(self._mark)
        if trace is not None:
            self._take(trace)

    @property
    def titles(self) -> Mapping[str, Mapping[Any, str]]:
        wrong = {v.name for v in WRONG_VERIFIERS}
        names = {
            name: f"✗ {name.replace('_', ' ')} (wrong)" if name in wrong else v.card.title
            for name, v in self._verifiers.items()
        }
        drafters = {card.name: card.title for card in methods("drafter")}
        return {"rule": names, "sampler": SAMPLER_NAMES, "drafter": drafters}

    def _sections(self) -> tuple[Section, ...]:
        rules = tuple(self._verifiers)
        schemes = tuple(SAMPLER_NAMES)
        drafts = (
            _knob("siblings", "int", 2, "Siblings drafted.", low=1, high=MOST_SIBLINGS),
            _knob("sampler", "choice", FITTING, "How they are drawn.", choices=schemes),
        )
        one = (
            _knob("rule", "choice", "multi_round", "The rule looked at below.", choices=rules),
            _knob("saboteurs", "bool", False, "Show the rules that are wrong on purpose, too."),
        )
        groups = [("Drafts", drafts), ("Verification rule", one), ("Audit of a run", run_knobs())]
        if self._trace is not None:
            most = max(2, len(self._trace.rounds))
            place = (_knob("round", "int", 1, "Round whose root gives p and q.", low=1, high=most),)
            groups.insert(0, ("Laws of a recorded run", place))
        return tuple(
            Section(
                title,
                tuple(Field(knob.name, knob, "lab", LABELS.get(knob.name, "")) for knob in knobs),
            )
            for title, knobs in groups
        )

    # ---- reading -------------------------------------------------------------------------------

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.history.now

    def outcomes(self) -> list[Compared]:
        """What every rule shown does with the laws of now; those that refuse such drafts last."""
        now = self.settings
        wrong = {verifier.name for verifier in WRONG_VERIFIERS}
        shown = [
            verifier
            for name, verifier in self._verifiers.items()
            if now["saboteurs"] or name not in wrong or name == now["rule"]
        ]
        drafts = (now["p"], now["q"], now["siblings"], now["sampler"])
        key = (*drafts, *(verifier.name for verifier in shown))
        with self._lock:
            if key not in self._made:
                self._made = {} if len(self._made) > 200 else self._made
                rules = compared(*drafts, shown)
                self._made[key] = sorted(rules, key=lambda rule: bool(rule.outcome.refusal))
            return self._made[key]

    def audit(self) -> Audit:
        """The chosen rule, audited on the likeliest tokens of the laws of now."""
        return self.audits.now(*self._audited())

    def _audited(self) -> tuple[tuple, Callable[[], Audit]]:
        now = self.settings
        p, q, rule = shortened(now["p"]), shortened(now["q"]), self._verifiers[now["rule"]]
        return (now["rule"], p, q), lambda: audit_verifier(rule, p, q)

    def contents(self) -> dict[str, Any]:
        """Everything that is shown."""
        with self._lock:
            now, outcomes = self.settings, self.outcomes()
            chosen = next(rule for rule in outcomes if rule.outcome.name == now["rule"])
            audit, fresh = self.audits.shown(*self._audited())
            laws = {"labels": list(now["labels"]), "p": list(now["p"]), "q": list(now["q"])}
            return {
                "head": frame.head_html("Verifier lab", self._from()),
                "progress": self.live.progress_html(),
                "error": frame.error_html(self._error),
                "laws": {"data": {"title": "Target p and draft q", **laws}},
                "rules": rule_acceptance.figure(self._bars(outcomes)),
                "emits": refill.figure(self._refill(chosen)),
                "audit": audit_html(audit, self.live, self._rule_title(), fresh),
            }

    def _from(self) -> str:
        now, trace = self.settings, self._trace
        if trace is not None and now["round"] <= len(trace.rounds):
            try:
                taken = laws_of_round(trace, trace.rounds[now["round"] - 1])
            except BadInput:
                taken = None
            if taken == (now["labels"], now["p"], now["q"]):
                return f"laws of round {now['round']} of a run of {trace.model}"
        return "laws of your own: drag the bars"

    def _rule_title(self) -> str:
        return self.titles["rule"][self.settings["rule"]]

    def _bars(self, outcomes: list[Compared]) -> rule_acceptance.RuleBars:
        now, titles = self.settings, self.titles["rule"]
        bars = tuple(
            rule_acceptance.RuleBar(
                rule.outcome.name,
                titles[rule.outcome.name],
                None if rule.outcome.refusal else rule.outcome.accepted,
                rule.outcome.variation,
                rule.outcome.lossless,
                rule.outcome.name == now["rule"],
                rule.optimum,
                rule.drafts if now["sampler"] == FITTING else "",
            )
            for rule in outcomes
        )
        return rule_acceptance.RuleBars(bars, "" if bars[0].drafts else outcomes[0].drafts)

    def _refill(self, rule: Compared) -> refill.Refill:
        now, done = self.settings, rule.outcome
        return refill.Refill(
            self._rule_title(),
            tuple(now["labels"]),
            tuple(done.kept.tolist()),
            tuple(done.redrawn.tolist()),
            tuple(now["p"]),
            done.variation,
            done.refusal,
        )

    def verbs(self) -> frozenset[str]:
        found = {"reset", "stop" if self.live.busy else "audit_run"}
        found |= {"take_recorded"} if self._trace is None else set()
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
                    self._take_round(value - 1)
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
            self.history.put(law, moved(self.settings[law], index, value))
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

    def _travelled(self) -> None:
        self._error = ""

    def audit_run(self) -> None:
        """Audit a run of the embedded models with the chosen rule; returns at once."""
        now = self.settings
        self.live.start(self._verifiers[now["rule"]], now)

    def stop(self) -> None:
        self.live.stop()

    def open(self, data: bytes, name: str) -> bool:
        """Take the laws from a saved trace."""
        return self._try(lambda: self._take(Trace.from_json(data, name)))

    def take_recorded(self) -> None:
        """Take the laws from the recorded run that comes with the labs."""
        found = recorded_trace()
        if found is None:
            self._try(_no_recording)
        else:
            self._try(lambda: self._take(found))

    def _try(self, work: Callable[[], None]) -> bool:
        with self._lock:
            try:
                work()
                self._error = ""
            except WorkbenchError as error:
                self._error = str(error)
        self._mark()
        return not self._error

    def _take(self, trace: Trace) -> None:
        place = telling_round(trace)
        self._trace = trace
        self.sections = self._sections()
        self._take_round(place)

    def _take_round(self, place: int) -> None:
        assert self._trace is not None
        place = min(place, len(self._trace.rounds) - 1)
        labels, p, q = laws_of_round(self._trace, self._trace.rounds[place])
        laws = {"round": place + 1, "labels": labels, "p": p, "q": q}
        self.history.replace({**self.settings, **laws})

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
        self.audits.close()


def _no_recording() -> None:
    raise BadInput("no recorded run is installed; open a saved trace")
