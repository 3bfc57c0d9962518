"""A run as users ask for it: a model, a prompt, three methods, sampling; and its trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from workbench.core.decoding import Need
from workbench.core.errors import BadInput
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.core.trace import NO_TOKEN, Method, Round, Trace
from workbench.engine.decode import Decoding
from workbench.models.load import Model, check_pair, versions


@dataclass(frozen=True, eq=False)
class RunSettings:
    """Everything that decides a run. Methods are instances or registered names.

    Args:
        model: the target.
        prompt: text to continue.
        drafter, verifier, policy: methods; names get their default knobs.
        sampling: temperature, top-k, top-p and the seed.
        max_new_tokens: most tokens to add.
        schedule: in which order drafting and verifying happen.
        draft_model: the smaller model, for drafters and policies that need one; on the target's
            device or on another, and each round then tells what crossed (``Round.transfer``).
        carried: the drafter's state that an earlier run ended with (``Run.drafting``), so that
            tables, skip sets and learners live on; drafters without ``resume`` start anew.
        record_top: likeliest tokens of p and q kept per row for the pictures (0 = none).

    Raises:
        UnknownMethod, BadKnob, BadInput, Mismatch: with the parameter, the value and the fix.
    """

    model: Model
    prompt: str
    drafter: Any = "token_recycling"
    verifier: Any = "exact_match"
    policy: Any = "fixed"
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int = 128
    draft_model: Model | None = None
    record_top: int = 8
    schedule: Any = "sequential"
    carried: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for family in ("drafter", "verifier", "policy", "schedule"):
            object.__setattr__(self, family, make_method(family, getattr(self, family)))
        count = self.max_new_tokens
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise BadInput(f"max_new_tokens={count!r}: must be a whole number, 1 or more")
        if not isinstance(self.prompt, str):
            raise BadInput(f"prompt={self.prompt!r}: expected text")
        if self.draft_model is not None:
            check_pair(self.model, self.draft_model)

    def change(self, **changes: Any) -> RunSettings:
        """A copy with some settings replaced (and checked again)."""
        return dataclasses.replace(self, **changes)


class Run:
    """One run: iterate :meth:`rounds`; :meth:`trace` is consistent at any moment."""

    def __init__(self, settings: RunSettings, cancelled: Callable[[], bool] = lambda: False):
        self.settings = settings
        self.prompt_tokens = settings.model.encode(settings.prompt)
        limit = settings.model.context_tokens - len(self.prompt_tokens)
        self.finish = ""  # why the run ended, known once its last round is in the trace
        self._rounds: list[Round] = []
        self._pieces: dict[int, str] = {}
        needs = settings.drafter.needs | getattr(settings.policy, "needs", frozenset())
        needs_draft = settings.draft_model is not None and Need.DRAFT in needs
        self.decoding = Decoding(
            settings.model.session(),
            settings.drafter,
            settings.verifier,
            settings.policy,
            settings.sampling,
            min(settings.max_new_tokens, limit),
            settings.model.eos_ids,
            settings.draft_model.session() if needs_draft else None,
            settings.record_top,
            cancelled,
            carried=settings.carried,
        )

    @property
    def drafting(self) -> Any:
        """The drafter's state as of the last round; another run can carry on from it."""
        return self.decoding.drafting

    def rounds(self) -> Iterator[Round]:
        """Decode; the models' locks are held while a round is computed, never between rounds."""
        steps = self.settings.schedule.decode(self.decoding, self.prompt_tokens)
        models = {self.settings.model, self.settings.draft_model or self.settings.model}
        first, last = min(models, key=id), max(models, key=id)  # one order, so no deadlock
        try:
            while True:
                with first.lock, last.lock:
                    done = next(steps, None)
                if done is not None:
                    self._rounds.append(done)
                self.finish = self._why()
                if done is None:
                    return
                yield done
        finally:
            steps.close()

    def _why(self) -> str:
        full = self.decoding.finish == "length"
        asked = self.decoding.max_new_tokens >= self.settings.max_new_tokens
        return "context" if full and not asked else self.decoding.finish

    def trace(self) -> Trace:
        """The trace so far."""
        settings, finish, rounds = self.settings, self.finish, list(self._rounds)
        model = settings.model
        return Trace(
            model=model.name,
            device=model.device,
            dtype=model.dtype,
            drafter=describe(settings.drafter),
            verifier=describe(settings.verifier),
            policy=describe(settings.policy),
            schedule=describe(settings.schedule),
            sampling=dataclasses.asdict(settings.sampling),
            prompt=settings.prompt,
            prompt_tokens=self.prompt_tokens,
            rounds=rounds,
            pieces=self._pieces_of(rounds),
            draft_model=settings.draft_model.name if self.decoding.draft else "",
            draft_device=settings.draft_model.device if self.decoding.draft else "",
            prefill_ms=self.decoding.prefill_ms,
            max_new_tokens=settings.max_new_tokens,
            finish=finish,
            versions=versions(),
            vocab_size=model.vocab_size,
        )

    def _pieces_of(self, rounds: list[Round]) -> dict[int, str]:
        """Text of every token id mentioned; only rounds not seen before are looked through."""
        wanted = set(self.prompt_tokens)
        for r in rounds[getattr(self, "_seen", 0) :]:
            wanted.update((r.root, r.bonus), r.tokens, r.emitted, r.report.get("mentioned", ()))
            for top in (*r.p_top, *r.q_top):
                wanted.update(top.ids)
        self._seen = len(rounds)
        for token in wanted - self._pieces.keys() - {NO_TOKEN}:
            self._pieces[token] = self.settings.model.piece(token)
        return dict(self._pieces)


def describe(instance: Any) -> Method:
    """A method's name and knob values, as traces store them; a method inside one likewise."""
    knobs = {}
    for knob in instance.card.knobs:
        value = getattr(instance, knob.name)
        if knob.kind == "method" and not isinstance(value, str):
            inner = describe(value)
            value = {"name": inner.name, "knobs": inner.knobs}
        knobs[knob.name] = value
    return Method(instance.name, knobs)


def generate(settings: RunSettings, on_round: Callable[[Round], None] | None = None) -> Trace:
    """Run to the end in this thread and return the trace.

    Example:
        >>> trace = generate(RunSettings(load("zoo:target"), "def add(a, b):"))
        >>> print(trace.text, trace.summary["mean_emitted"])
    """
    run = Run(settings)
    for done in run.rounds():
        if on_round:
            on_round(done)
    return run.trace()
