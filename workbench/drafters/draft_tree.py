"""A smaller model drafts whole trees, with siblings drawn as each verification rule wants them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from workbench.core import siblings
from workbench.core.decoding import Budget, Context, DraftStep, Feedback, Need
from workbench.core.errors import BadKnob
from workbench.core.method import Paper, knob, method
from workbench.core.sampling import fit_vocabulary
from workbench.core.tree import DraftTree

SAMPLERS = ("gumbel_top_k", "stochastic_beam", "independent", "sequences", "greedy_top")


@dataclass
class _Growth:
    """The tree so far, and the rows whose children are drawn next."""

    tokens: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    laws: list[torch.Tensor] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=lambda: [0])
    log_prob: torch.Tensor | None = None  # of the rows, for beams
    value: torch.Tensor | None = None

    def path(self, row: int) -> tuple[int, ...]:
        """The tokens from ``row`` up to the root."""
        found = []
        while row:
            found.append(self.tokens[row - 1])
            row = self.parent[row - 1] + 1
        return tuple(found)

    def add(self, row: int, drawn: siblings.Siblings, most: int) -> None:
        """Hang siblings below ``row``; those beyond ``most`` nodes in all are left out."""
        for token, law in zip(drawn.tokens.tolist(), drawn.laws, strict=True):
            if len(self.tokens) < most:
                self.tokens.append(token)
                self.parent.append(row - 1)
                self.laws.append(law)
                self.score.append(float(law[token]))


@method(
    "drafter",
    title="Draft tree",
    paper=Paper(
        "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without"
        " Replacement",
        2024,
        "2402.14160",
        "section 3.1",
    ),
)
class DraftTreeOfModel:
    """Expand every node of a level with siblings from the draft model, one pass a level.

    *Idea*: how siblings are drawn decides what a verification rule can accept. ``gumbel_top_k``
    (RSD-C) and ``stochastic_beam`` (RSD-S) never draw a token twice; ``independent`` (SpecInfer)
    and ``sequences`` (SpecTr) may; ``greedy_top`` takes the likeliest for certain and draws one.

    *Paper*: RSD arXiv 2402.14160; SpecTr 2310.15141; SpecInfer 2305.09781; top plus one 2502.18779.

    *Deviations*: at temperature 0 the top tokens of each node are *chosen*, whatever the sampler.

    *Cost*: one draft pass a level over that level's nodes only; without replacement also one sort.

    *Raises*: BadKnob for a branching that is not a list of whole numbers.
    """

    needs = frozenset({Need.DRAFT})

    sampler: str = knob("gumbel_top_k", choices=SAMPLERS, help="How siblings are drawn.")
    branching: str = knob(
        "3,2,1", help="Children of each node by level; the last number holds for deeper levels."
    )
    width: int = knob(
        4, low=1, high=64, unit="paths", help="Beams of stochastic_beam, or sequences."
    )

    @property
    def random_shape(self) -> bool:
        """Whether the shape depends on what was drawn (a beam drops parents)."""
        return self.sampler == "stochastic_beam"

    def check_knobs(self) -> None:
        parts = self.branching.split(",")
        if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            raise BadKnob(f"branching={self.branching!r}: write whole numbers, such as '3,2,1'")

    def init(self, ctx: Context) -> None:
        return None

    def propose(self, ctx: Context, state: None, budget: Budget) -> tuple[DraftTree, None]:
        """Draw level by level until the budget or the policy ends it."""
        if min(budget.depth, budget.nodes, budget.width) < 1:
            return DraftTree.empty(ctx.device), None
        session, growth = ctx.draft, _Growth()
        tokens = [min(t, session.model.vocab_size - 1) for t in ctx.tokens]
        session.crop(min(len(session), len(tokens) - 1))
        session.sync(tokens[:-1])
        logits = session.forward(tokens[-1:]).logits
        for depth in range(1, budget.depth + 1):
            laws = ctx.sampling.law(fit_vocabulary(logits, ctx.vocab_size))
            first = len(growth.tokens)
            self._level(ctx, growth, laws, logits, depth, budget)
            new = growth.tokens[first:]
            step = DraftStep(depth, laws[0], logits[0], torch.tensor(new[0]) if new else None)
            full = len(growth.tokens) >= budget.nodes or depth == budget.depth or not new
            if full or not budget.go(step):
                break
            known = [min(t, session.model.vocab_size - 1) for t in new]
            above = [parent + 1 for parent in growth.parent[first:]]
            logits = session.forward(known, above, grow=True).logits
            growth.rows = list(range(first + 1, len(growth.tokens) + 1))
        session.crop(len(session))  # the tree's rows are not kept
        probs = torch.stack(growth.laws) if growth.laws and not ctx.sampling.greedy else None
        place = session.device  # siblings are drawn where the laws are; what was drawn crosses
        return DraftTree(
            ctx.here(torch.tensor(growth.tokens, dtype=torch.long, device=place)),
            tuple(growth.parent),
            None if probs is None else ctx.here(probs),
            ctx.here(torch.tensor(growth.score, device=place)),
            with_replacement=self.sampler in ("independent", "sequences"),
        ), None

    def _level(self, ctx: Context, growth: _Growth, laws, logits, depth: int, budget: Budget):
        """Draw the children of every row of the last level."""
        if self.sampler == "stochastic_beam" and not ctx.sampling.greedy:
            return self._beam_level(ctx, growth, laws, budget)
        most = min(self._fan(depth), budget.width)
        known: dict[tuple[int, ...], torch.Tensor] = {}
        for place, row in enumerate(growth.rows):
            # Rows of one path have one law; their sums may round in other orders.
            law = known.setdefault(growth.path(row), laws[place])
            if ctx.sampling.greedy:
                own = logits[place, : ctx.vocab_size].float().softmax(-1)
                best = own.topk(min(most, len(own))).indices
                growth.add(row, siblings.Siblings(best, own.expand(len(best), -1)), budget.nodes)
            else:
                growth.add(row, self._drawn(ctx, law, most), budget.nodes)

    def _fan(self, depth: int) -> int:
        if self.sampler in ("sequences", "stochastic_beam"):
            return self.width if depth == 1 else 1
        numbers = [int(part) for part in self.branching.split(",")]
        return numbers[min(depth, len(numbers)) - 1]

    def _drawn(self, ctx: Context, law: torch.Tensor, k: int) -> siblings.Siblings:
        if self.sampler == "gumbel_top_k":
            uniforms = ctx.uniform(len(law), device=law.device)
            return siblings.without_replacement(law, uniforms, k)
        if self.sampler == "greedy_top":
            return siblings.top_and_one(law, ctx.uniform(1, device=law.device), k)
        return siblings.independent(law, ctx.uniform(k, device=law.device))

    def _beam_level(self, ctx: Context, growth: _Growth, laws, budget: Budget) -> None:
        """The survivors of all beams, in falling value; siblings keep that order."""
        zero = torch.zeros(1, dtype=torch.float64, device=laws.device)
        log_prob = zero if growth.log_prob is None else growth.log_prob
        value = zero if growth.value is None else growth.value
        room = min(self.width, budget.width, budget.nodes - len(growth.tokens))
        uniforms = ctx.uniform(*laws.shape, device=laws.device)
        beam = siblings.stochastic_beam(laws, log_prob, value, uniforms, room)
        growth.log_prob, growth.value = beam.log_prob, beam.value
        earlier: dict[int, torch.Tensor] = {}
        for place, token in zip(beam.parent.tolist(), beam.token.tolist(), strict=True):
            law = earlier.get(place, laws[place])
            one = torch.tensor([token], device=laws.device)
            growth.add(growth.rows[place], siblings.Siblings(one, law[None]), budget.nodes)
            rest = law.clone()
            rest[token] = 0
            earlier[place] = rest / rest.sum().clamp_min(torch.finfo(law.dtype).tiny)

    def update(self, ctx: Context, state: None, feedback: Feedback) -> None:
        return None
