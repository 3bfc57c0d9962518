"""THE loop: propose, score, verify, draw, commit, record. Every mode of the workbench runs it.

Pausing is not calling ``next``; stepping is calling it once; cancelling closes the generator and
leaves the session at the last committed token.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.core.decoding import (
    Budget,
    Context,
    Drafter,
    DraftStep,
    Feedback,
    LengthPolicy,
    Need,
    Outcome,
    Verdict,
    Verifier,
    resumed,
)
from workbench.core.errors import BadInput, Mismatch
from workbench.core.sampling import Sampling, draw_one
from workbench.core.trace import NO_TOKEN, Round
from workbench.core.tree import DraftTree, shape_of
from workbench.engine.hidden_text import HiddenText
from workbench.engine.record import Draw, record_round
from workbench.engine.seen import Seen, seen_at_once, seen_of
from workbench.engine.stopwatch import Stopwatch
from workbench.models.learner import Learner
from workbench.models.native.laws import compiled_laws, entropies
from workbench.models.session import Forward, Session
from workbench.models.store import Store, open_store
from workbench.models.twin import Twin


@dataclass(eq=False)
class Decoding:
    """What a run needs besides its prompt; ``finish`` says why it ended."""

    target: Session
    drafter: Drafter
    verifier: Verifier
    policy: LengthPolicy
    sampling: Sampling
    max_new_tokens: int
    eos_ids: frozenset[int] = frozenset()
    draft: Session | None = None
    record_top: int = 8
    cancelled: Callable[[], bool] = field(default=lambda: False)
    finish: str = ""
    prefill_ms: float = 0.0
    store: Store | None = None  # opened from the drafter's ``corpus`` where none is given
    carried: Any = None  # the drafter's state of an earlier run, for drafters that can resume
    drafting: Any = None  # the drafter's state as of the last round
    steps: list[DraftStep] = field(default_factory=list)  # levels drafted in this round


def decode(run: Decoding, prompt: list[int]) -> Iterator[Round]:
    """Generate after ``prompt``, yielding one :class:`Round` at a time.

    Raises:
        BadInput: no prompt, no room, or a drafter that exceeds its budget.
        Mismatch: a drafter or verifier that does not fit.
        NotFinite: NaN logits, naming the layer.
    """
    ctx, capture = prepare(run, prompt)
    drafter, policy = run.drafter, run.policy
    run.drafting, length = first_state(run, ctx), policy.init(ctx)
    end, index = len(prompt) + run.max_new_tokens, 0
    while not run.finish:
        watch = Stopwatch(run.target, run.draft)
        budget = bounded(run, policy.budget(length), length, end - len(ctx.tokens))
        if budget is None:
            run.finish = "context"
            return
        tree, run.drafting = drafter.propose(ctx, run.drafting, budget)
        check_tree(run, tree, budget)
        report_policy(run, ctx, length)
        watch.lap("draft")
        if run.cancelled():
            run.finish = "stopped"
            return
        rows = rows_of(ctx.tokens[-1], tree)
        forward = run.target.forward(rows, (-1, *(p + 1 for p in tree.parent)), capture=capture)
        watch.lap("verify")
        seen = look(run, forward, tree, ctx.tokens)
        verdict = run.verifier.verify(tree, seen.p)
        drawn = draw_outcome(run, ctx, tree, verdict, end)
        watch.lap("other")
        kept = [0, *(n + 1 for n in drawn.outcome.path[: len(drawn.outcome.emitted)])]
        run.target.commit(kept, (ctx.tokens[-1], *tree.token_ids))
        watch.lap("commit")
        feedback = Feedback(tree, forward.logits, forward.hidden, drawn.outcome, ctx.tokens)
        run.drafting = drafter.update(ctx, run.drafting, feedback)
        length = policy.update(length, tree, drawn.outcome)
        watch.lap("draft")
        start, root = len(ctx.tokens), ctx.tokens[-1]
        ctx.tokens = [*ctx.tokens, *drawn.outcome.emitted]
        if capture:
            ctx.provided[Need.HIDDEN].append(forward.hidden, kept)
        watch.lap("other")
        told, note = ctx.take_reports()
        yield record_round(
            index,
            start,
            root,
            tree,
            seen,
            verdict,
            drawn,
            budget,
            watch,
            told,
            note,
        )
        index += 1


def report_policy(run: Decoding, ctx: Context, state: Any) -> None:
    """What the policy has to tell about the levels of this round, if anything."""
    report = getattr(run.policy, "report", None)
    if report is not None and run.steps:
        for key, value in report(state, run.steps).items():
            ctx.report(key, value)


def first_state(run: Decoding, ctx: Context) -> Any:
    """The drafter's state: carried over from an earlier run where it can resume, else new."""
    return run.drafter.init(ctx) if run.carried is None else resumed(run.drafter, ctx, run.carried)


def prepare(run: Decoding, prompt: list[int]) -> tuple[Context, tuple[str, ...]]:
    """Check the request, feed the prompt, and provide what drafter and policy declared.

    Returns:
        The context, and the names of the hidden states that each target pass must keep.
    """
    if not prompt:
        raise BadInput("prompt is empty; write at least one character")
    if run.max_new_tokens < 1:
        raise BadInput(f"max_new_tokens={run.max_new_tokens}: must be 1 or more")
    needs = run.drafter.needs | getattr(run.policy, "needs", frozenset())
    capture = taps_of(run) if Need.HIDDEN in needs else ()
    provided = _provide(run, needs)
    if run.draft is not None and run.draft.model.context_tokens < len(prompt):
        raise BadInput(
            f"prompt has {len(prompt)} tokens, more than the draft model"
            f" {run.draft.model.name!r} can hold ({run.draft.model.context_tokens})"
        )
    began = time.perf_counter()
    if capture:
        run.target.crop(0)  # hidden states are kept for the whole text, so all of it is fed anew
    filled = run.target.sync(prompt[:-1], capture=capture)
    run.prefill_ms = (time.perf_counter() - began) * 1e3
    if capture:
        provided[Need.HIDDEN] = HiddenText(filled.hidden if filled else {})
    ctx = Context(
        list(prompt),
        run.sampling,
        torch.Generator().manual_seed(int(run.sampling.seed)),
        run.target.model.vocab_size,
        run.target.device,
        provided,
    )
    return ctx, capture


def taps_of(run: Decoding) -> tuple[str, ...]:
    """The hidden states that the drafter asks for."""
    taps = getattr(run.drafter, "taps", None)
    return tuple(taps(run.target.model.layer_count)) if taps else ("final",)


def _provide(run: Decoding, needs: frozenset[Need]) -> dict[Need, Any]:
    provided: dict[Need, Any] = {}
    if Need.TARGET in needs:
        provided[Need.TARGET] = run.target
    if Need.DRAFT in needs:
        if run.draft is None:
            who = "drafter" if Need.DRAFT in run.drafter.needs else "policy"
            raise Mismatch(
                f"{who}={getattr(run, who).name!r} needs a draft model; pass draft_model="
                "load('zoo:draft') or choose a drafter without one (token_recycling)"
            )
        provided[Need.DRAFT] = run.draft
    if Need.LEARNER in needs:
        provided[Need.LEARNER] = Learner(run.draft.model)
    if Need.TWIN in needs:
        provided[Need.TWIN] = Twin(run.target.model)
    if Need.STORE in needs:
        if run.store is None:
            corpus, limit_tokens = run.drafter.corpus
            run.store = open_store(corpus, run.target.model, limit_tokens)
        provided[Need.STORE] = run.store
    return provided


def bounded(run: Decoding, budget: Budget, state: Any, remaining: int) -> Budget | None:
    """The policy's budget, cut to what may still be emitted and to what the context holds."""
    room = run.target.model.context_tokens - len(run.target) - 1
    if room < 0:
        return None
    if run.draft is not None:  # it too has to hold the text, the root and the whole tree
        room = max(0, min(room, run.draft.model.context_tokens - len(run.target) - 2))
    depth = max(0, min(budget.depth, remaining - 1, room))
    nodes = 0 if depth == 0 else max(0, min(budget.nodes, room))

    run.steps = []

    def go(step: DraftStep) -> bool:
        run.steps.append(step)
        return not run.cancelled() and run.policy.go(state, run.steps)

    wants_hidden = getattr(run.policy, "wants_hidden", False)
    steady = getattr(run.policy, "steady", False)
    return Budget(depth, nodes, budget.width, go, wants_hidden, steady)


def check_tree(run: Decoding, tree: DraftTree, budget: Budget) -> None:
    """Refuse a tree beyond its budget, or one that the verifier cannot take."""
    name = getattr(run.drafter, "name", type(run.drafter).__name__)
    deepest = max(tree.depth, default=0)
    if len(tree) > budget.nodes or deepest > budget.depth:
        raise Mismatch(
            f"drafter={name!r} proposed {len(tree)} nodes of depth {deepest}; its budget was"
            f" {budget.nodes} nodes of depth {budget.depth}"
        )
    if run.verifier.chains_only and not shape_of(tree.parent).is_chain:
        raise Mismatch(
            f"verifier={run.verifier.name!r} takes one chain, but drafter={name!r} proposed a"
            " branching tree; choose multi_round or exact_match, or a width of 1"
        )


def rows_of(root: int, tree: DraftTree) -> list[int] | torch.Tensor:
    """Tokens of a target pass; a list where nothing has to come from a device."""
    if tree.tokens.device.type == "cpu":
        return [root, *tree.token_ids]
    return torch.cat((tree.tokens.new_full((1,), root), tree.tokens))


def look(run: Decoding, forward: Forward, tree: DraftTree, tokens: list[int]) -> Seen:
    """The laws of a forward and the numbers of them and of the tree.

    On a device they are read together, once.

    Raises:
        NotFinite: naming the layer of the first NaN.
    """
    if forward.logits.device.type == "cpu":
        p, bits = target_laws(run, forward, tokens)
        return seen_of(tree, p, bits, run.record_top)
    highest, seen = seen_at_once(run.sampling, forward.logits, tree, run.record_top)
    if not math.isfinite(highest):
        raise run.target.explain_not_finite(tokens)
    return seen


def target_laws(
    run: Decoding, forward: Forward, tokens: list[int]
) -> tuple[torch.Tensor, list[float]]:
    """The laws ``[n+1 v]`` of a forward and their entropies in bits.

    Raises:
        NotFinite: naming the layer of the first NaN.
    """
    # The largest logit is NaN if any is, and infinite if any is; -inf only bars a token.
    found = compiled_laws(run.sampling, forward.logits)
    highest = [float(forward.logits.max())] if found is None else found.highest
    if not all(map(math.isfinite, highest)):
        raise run.target.explain_not_finite(tokens)
    if found is not None:
        return found.laws, found.bits
    laws = run.sampling.law(forward.logits)
    return laws, entropies(laws)


def draw_outcome(
    run: Decoding,
    ctx: Context,
    tree: DraftTree,
    verdict: Verdict,
    end: int,
    bonus_at_end: bool = True,
) -> Draw:
    """The one random draw: where the path ends, then the token there.

    Without ``bonus_at_end`` a path that ends at the last row gets no further token (its law is not
    known yet); ``bonus`` is then :data:`workbench.core.trace.NO_TOKEN`.
    """
    uniforms = torch.rand(2, generator=ctx.rng, dtype=torch.float64).tolist()
    row = draw_one(verdict.stop, uniforms[0]) if len(tree) else 0
    path = tree.path_to(row)
    tokens = tree.token_ids if path else ()
    emitted = [tokens[node] for node in path]
    bonus = NO_TOKEN
    if bonus_at_end or row < len(tree):
        bonus = draw_one(verdict.bonus(row), uniforms[1])
        emitted.append(bonus)
    emitted = emitted[: end - len(ctx.tokens)]
    for place, token in enumerate(emitted):
        if token in run.eos_ids:
            emitted, run.finish = emitted[: place + 1], "eos"
            break
    if not run.finish and len(ctx.tokens) + len(emitted) >= end:
        run.finish = "length"
    return Draw(Outcome(tuple(path), bonus, tuple(emitted)), row, uniforms[0])
