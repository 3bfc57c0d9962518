"""What every verifier must satisfy: checks by exact enumeration on a tiny vocabulary.

Checks are chosen by what a verifier declares (``lossless``, ``chains_only``) and by the drafts that
it takes (it refuses the others with :class:`Mismatch`), never by its name.

Example:
    >>> suite = VerifierSuite(make_method("verifier", "rejection"))
    >>> suite.check_output_law(Sampling(temperature=0.7, top_k=2))
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import cache

import torch

from workbench.core.decoding import Verdict, Verifier
from workbench.core.errors import Mismatch
from workbench.core.sampling import Sampling
from workbench.core.tree import DraftTree, shape_of
from workbench.testing import oracles
from workbench.testing.oracles import Draft

TOLERANCE = 1e-12
SAMPLINGS = [
    Sampling(0.0),
    *(
        Sampling(temperature, top_k, top_p)
        for temperature, top_k, top_p in itertools.product((0.7, 1.0), (0, 2), (1.0, 0.8))
    ),
]
# Tree shapes as parents, with the vocabulary they are enumerated over.
CHAINS = [((-1,), 5), ((-1, 0), 4)]
TREES = [
    ((-1, -1, -1), 4),  # three siblings
    ((-1, -1, 0, 0), 4),  # breadth first, one side expanded
    ((-1, 0, 0, 0, -1), 3),  # depth first, three siblings below
    ((-1, -1, 0, 0, 1, 1), 3),  # two siblings, two each
    ((-1, -1, 0, 1, 2, 3), 3),  # two sequences
]
SHAPES = CHAINS + TREES


@cache
def laws(vocab_size: int, seed: int, sampling: Sampling) -> oracles.LawOf:
    """A random model's law of the next token given the tokens emitted so far."""
    generator = torch.Generator().manual_seed(1000 * vocab_size + seed)
    spread = 0.5 + 1.5 * torch.rand((), generator=generator, dtype=torch.float64)
    logits: dict[tuple[int, ...], torch.Tensor] = {}
    for length in range(5):
        for text in itertools.product(range(vocab_size), repeat=length):
            raw = torch.randn(vocab_size, generator=generator, dtype=torch.float64)
            logits[text] = raw * spread

    @cache
    def law_of(text: tuple[int, ...]) -> torch.Tensor:
        return sampling.law(logits[text])

    law_of.slow = lambda text: torch.tensor(  # the same law by the slow reference
        oracles.slow_law(logits[text].tolist(), sampling), dtype=torch.float64
    )
    return law_of


@cache
def target_joint(vocab_size: int, seed: int, sampling: Sampling) -> torch.Tensor:
    """What a lossless rule must emit, from the slow reference of the filters."""
    return oracles.joint_law(cache(laws(vocab_size, seed, sampling).slow), vocab_size)


class VerifierSuite:
    """The checks of one verifier instance; each raises AssertionError on a breach."""

    def __init__(self, verifier: Verifier):
        self.verifier = verifier

    @property
    def shapes(self) -> list[tuple[tuple[int, ...], int]]:
        return CHAINS if self.verifier.chains_only else SHAPES

    def takes(self, tree: DraftTree, p: torch.Tensor) -> bool:
        """Whether the verifier handles this kind of draft."""
        try:
            self.verifier.verify(tree, p)
        except Mismatch:
            return False
        return True

    def law(
        self, drafts: Iterable[Draft], target: oracles.LawOf, vocab_size: int
    ) -> torch.Tensor | None:
        """Law of the first three tokens over all drafts; None where one of them is refused."""
        joint = torch.zeros((vocab_size,) * 3, dtype=torch.float64)
        total = 0.0
        for tree, chance in drafts:
            try:
                verdict = self.verifier.verify(tree, oracles.target_laws(tree, target))
            except Mismatch as refusal:
                assert str(refusal), "a refusal says why"
                return None
            joint += chance * oracles.emitted_law(verdict, tree, target, vocab_size)
            total += chance
        assert abs(total - 1) < TOLERANCE, f"the enumerated drafts have mass {total}"
        return joint

    def draft_families(self, sampling: Sampling) -> Iterator[tuple]:
        """(sentence, vocabulary, drafts of total mass 1) for every scheme the verifier takes."""
        for parent, size in self.shapes:
            draft = laws(size, 2, sampling)
            for scheme in oracles.SCHEMES:
                drafts = list(oracles.every_draft(parent, draft, scheme))
                yield f"{parent} drawn, siblings {scheme}", size, drafts
            generator = torch.Generator().manual_seed(len(parent))
            for _ in range(6):
                tokens = torch.randint(0, size, (len(parent),), generator=generator)
                yield (
                    f"{parent} chosen {tokens.tolist()}",
                    size,
                    [Draft(DraftTree(tokens, parent), 1.0)],
                )

    def check_output_law(self, sampling: Sampling) -> None:
        """The first three tokens follow the target's joint law to 1e-12 (lossless rules)."""
        assert self.verifier.lossless, "this check is for lossless rules"
        taken = 0
        for sentence, size, drafts in self.draft_families(sampling):
            target = laws(size, 1, sampling)
            joint = self.law(drafts, target, size)
            if joint is None:
                continue
            taken += 1
            error = float((joint - target_joint(size, 1, sampling)).abs().max())
            assert error <= TOLERANCE, (
                f"{sentence}, {sampling}: the output law is off by {error:.3g}"
            )
        assert taken, "the verifier refuses every kind of draft"

    def check_barred_output_law(self, sampling: Sampling) -> None:
        """Nodes that are no candidates leave the law exact and are never accepted."""
        for parent, size in self.shapes:
            target, draft = laws(size, 1, sampling), laws(size, 2, sampling)
            generator = torch.Generator().manual_seed(len(parent) + 7)
            drafts = []
            candidate = torch.rand(len(parent), generator=generator) < 0.6
            candidate[int(torch.randint(0, len(parent), (), generator=generator))] = False
            for tree, chance in oracles.every_draft(parent, draft):
                drafts.append(Draft(_barred(tree, candidate), chance))
            joint = self.law(drafts, target, size)
            if joint is None:
                continue
            self._check_never_accepted(drafts, target)
            if self.verifier.lossless:
                error = float((joint - target_joint(size, 1, sampling)).abs().max())
                assert error <= TOLERANCE, f"{parent} barred {candidate.tolist()}: off by {error}"

    def _check_never_accepted(self, drafts: list[Draft], target: oracles.LawOf) -> None:
        for tree, _ in drafts:
            verdict = self.verifier.verify(tree, oracles.target_laws(tree, target))
            reach = verdict.reach(tree)
            for node in range(len(tree)):
                if not tree.candidate[node]:
                    assert reach[node + 1] == 0, f"barred node {node} is reached: {reach}"
                    assert float(verdict.accept[node]) == 0, f"barred node {node} is accepted"

    def check_padding_is_never_accepted(self) -> None:
        """Padding of token id 0 cannot match where id 0 is what the target wants (pitfall 13)."""
        p = torch.tensor([[0.9, 0.05, 0.05]], dtype=torch.float64)
        for parent in ((-1,), (-1, 0, 1), (-1, -1, 0)):
            if self.verifier.chains_only and not shape_of(parent).is_chain:
                continue
            tokens = torch.zeros(len(parent), dtype=torch.long)
            for drawn in (False, True):
                rows = p.expand(len(parent) + 1, -1)
                tree = DraftTree(tokens, parent, rows[1:] if drawn else None)
                tree = _barred(tree, torch.zeros(len(parent), dtype=torch.bool))
                if self.takes(tree, rows):
                    verdict = self.verifier.verify(tree, rows)
                    assert float(verdict.stop[0]) == 1, f"padding accepted: {verdict.stop}"
                    assert torch.allclose(verdict.bonus(0), p[0], atol=TOLERANCE), "law changed"

    def check_equal_laws_accept_everything(self) -> None:
        """q = p accepts the whole chain; asked of rules that look at q (by trying)."""
        p = laws(4, 3, Sampling(1.0))
        seen = 0
        for tree, _ in oracles.every_draft((-1, 0), p):
            rows = oracles.target_laws(tree, p)
            if not self.takes(tree, rows) or not self._looks_at_q(tree, rows):
                continue
            seen += 1
            stop = self.verifier.verify(tree, rows).stop
            assert abs(float(stop[-1]) - 1) < TOLERANCE, f"q = p, yet stop is {stop.tolist()}"
        greedy = laws(4, 3, Sampling(0.0))
        for tree, _ in oracles.every_draft((-1, 0), greedy):
            for draft in (tree, DraftTree(tree.tokens, tree.parent)):
                rows = oracles.target_laws(draft, greedy)
                if self.takes(draft, rows):
                    seen += 1
                    assert float(self.verifier.verify(draft, rows).stop[-1]) == 1, "T = 0"
        assert seen, "the verifier refuses every kind of draft"

    def _looks_at_q(self, tree: DraftTree, p: torch.Tensor) -> bool:
        other = DraftTree(tree.tokens, tree.parent, torch.full_like(tree.probs, 1 / p.shape[-1]))
        return not torch.equal(
            self.verifier.verify(tree, p).accept, self.verifier.verify(other, p).accept
        )

    def check_disjoint_supports_accept_nothing(self) -> None:
        """Where p and q share no token the round ends at the root with a draw of p."""
        p = torch.tensor([0.3, 0.7, 0, 0, 0], dtype=torch.float64)
        q = torch.tensor([0, 0, 0.2, 0.5, 0.3], dtype=torch.float64)
        for parent, _ in self.shapes:
            tokens = torch.tensor([2 + node % 3 for node in range(len(parent))])
            rows = p.expand(len(parent) + 1, -1)
            for probs in (q.expand(len(parent), -1), None):
                tree = DraftTree(tokens, parent, probs)
                if self.takes(tree, rows):
                    verdict = self.verifier.verify(tree, rows)
                    assert float(verdict.stop[0]) == 1, f"{parent}: stop {verdict.stop.tolist()}"
                    if self.verifier.lossless:
                        assert torch.allclose(verdict.bonus(0), p, atol=TOLERANCE)

    def check_verdict_is_a_law(self) -> None:
        """Stop sums to 1, accept lies in [0, 1], every reachable bonus is a law; inputs stay."""
        for sampling in (Sampling(0.0), Sampling(1.0), Sampling(0.7, 2, 0.8)):
            for sentence, size, drafts in self.draft_families(sampling):
                target = laws(size, 1, sampling)
                for tree, _ in drafts[:40]:
                    rows = oracles.target_laws(tree, target)
                    if not self.takes(tree, rows):
                        break
                    before = rows.clone()
                    verdict = self.verifier.verify(tree, rows)
                    check_verdict(verdict, tree, sentence)
                    again = self.verifier.verify(tree, rows)
                    assert torch.equal(verdict.stop, again.stop), f"{sentence}: not deterministic"
                    assert torch.equal(rows, before), f"{sentence}: p was written to"

    def check_impossible_tokens(self) -> None:
        """A token the filtered target never emits is neither accepted nor drawn (lossless)."""
        if not self.verifier.lossless:
            return
        sampling = Sampling(0.7, top_k=2)
        for sentence, size, drafts in self.draft_families(sampling):
            target = laws(size, 1, sampling)
            for tree, _ in drafts[:40]:
                rows = oracles.target_laws(tree, target)
                if not self.takes(tree, rows):
                    break
                verdict, tokens = self.verifier.verify(tree, rows), tree.tokens.tolist()
                reach = verdict.reach(tree)
                for node, above in enumerate(tree.parent):
                    if rows[above + 1, tokens[node]] == 0:
                        assert reach[node + 1] == 0, f"{sentence}: impossible token accepted"
                for row, chance in enumerate(verdict.stop.tolist()):
                    if chance:
                        outside = verdict.bonus(row)[rows[row] == 0]
                        assert float(outside.sum()) == 0, f"{sentence}: impossible bonus"

    def check_near_equal_laws(self) -> None:
        """p within one ulp of q, and used-up residuals: no NaN, laws stay laws (pitfall 6)."""
        for dtype in (torch.float32, torch.float64):
            p = torch.tensor([0.5, 0.3, 0.2], dtype=dtype)
            for direction in (0.0, 1.0):
                q = torch.nextafter(p, torch.full_like(p, direction))
                for parent, _ in self.shapes:
                    tokens = torch.tensor([node % 3 for node in range(len(parent))])
                    rows, laws_q = p.expand(len(parent) + 1, -1), q.expand(len(parent), -1)
                    for tree in (DraftTree(tokens, parent, laws_q), DraftTree(tokens, parent)):
                        if self.takes(tree, rows):
                            verdict = self.verifier.verify(tree, rows)
                            check_verdict(verdict, tree, f"{parent} 1 ulp, {dtype}", every=True)

    def check_used_up_support(self) -> None:
        """Siblings that cover everything the target may emit leave no residual, and no NaN."""
        if self.verifier.chains_only:
            return
        p = torch.tensor([0.6, 0.4, 0.0], dtype=torch.float64)
        rows = p.expand(5, -1)
        tokens = torch.tensor([0, 1, 0, 1])  # duplicates too
        chain_of_laws = torch.tensor(
            [[0.5, 0.5, 0], [0.5, 0.5, 0], [0.6, 0.4, 0], [0.6, 0.4, 0]], dtype=torch.float64
        )
        for probs in (None, chain_of_laws):
            tree = DraftTree(tokens, (-1, -1, -1, -1), probs)
            if self.takes(tree, rows):
                verdict = self.verifier.verify(tree, rows)
                check_verdict(verdict, tree, "used-up support", every=True)

    def check_bonus_after_full_acceptance(self, sampling: Sampling) -> None:
        """After the last drafted token the bonus is the *filtered* target law (pitfall 5)."""
        for parent, size in self.shapes:
            target = laws(size, 1, sampling)
            tokens: list[int] = []
            for above in parent:  # the likeliest token everywhere: acceptance is possible
                tokens.append(int(target(oracles.text_of(tokens, parent, above)).argmax()))
            rows = oracles.target_laws(DraftTree(torch.tensor(tokens), parent), target)
            for probs in (None, rows[[above + 1 for above in parent]]):
                tree = DraftTree(torch.tensor(tokens), parent, probs)
                if not self.takes(tree, rows):
                    continue
                verdict = self.verifier.verify(tree, rows)
                for row, children in enumerate(shape_of(parent).children):
                    if not children and float(verdict.stop[row]):
                        error = float((verdict.bonus(row) - rows[row]).abs().max())
                        assert error <= TOLERANCE, f"{parent} row {row}: bonus off by {error:.3g}"


def check_verdict(verdict: Verdict, tree: DraftTree, sentence: str, every: bool = False) -> None:
    """stop is a law over rows, accept are probabilities, the bonus of each reached row is a law."""
    slack = 1e-5 if verdict.stop.dtype == torch.float32 else 1e-12
    assert verdict.stop.shape == (len(tree) + 1,), f"{sentence}: stop {verdict.stop.shape}"
    assert verdict.accept.shape == (len(tree),), f"{sentence}: accept {verdict.accept.shape}"
    assert bool(torch.isfinite(verdict.stop).all()), f"{sentence}: stop {verdict.stop}"
    assert float(verdict.stop.min()) >= 0, f"{sentence}: stop {verdict.stop}"
    assert abs(float(verdict.stop.sum()) - 1) <= slack, f"{sentence}: stop {verdict.stop}"
    if len(tree):
        low, high = float(verdict.accept.min()), float(verdict.accept.max())
        assert low >= 0 and high <= 1, f"{sentence}: accept {verdict.accept}"
    for row, chance in enumerate(verdict.stop.tolist()):
        if chance or every:
            bonus = verdict.bonus(row)
            assert bool(torch.isfinite(bonus).all()), f"{sentence}: bonus({row}) {bonus}"
            assert float(bonus.min()) >= 0, f"{sentence}: bonus({row}) {bonus}"
            assert abs(float(bonus.sum()) - 1) <= slack, f"{sentence}: bonus({row}) {bonus}"


def _barred(tree: DraftTree, candidate: torch.Tensor) -> DraftTree:
    return DraftTree(
        tree.tokens, tree.parent, tree.probs, tree.score, candidate, tree.with_replacement
    )
