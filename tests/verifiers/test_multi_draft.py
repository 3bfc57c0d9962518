"""RSD and k-SEQ beyond the suite: the scale, its limits, and what they reduce to."""

from __future__ import annotations

import itertools

import pytest
import torch

from workbench.core.bounds import optimal_acceptance
from workbench.core.method import make_method
from workbench.core.siblings import shrinking
from workbench.core.tree import DraftTree
from workbench.testing.oracles import INDEPENDENT, every_draft
from workbench.verifiers.spectr import scale


def pair(seed: int, size: int = 4, spread: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, size, generator=generator, dtype=torch.float64) * spread
    return tuple(logits.softmax(-1))


@pytest.mark.parametrize("k", [2, 3, 8])
def test_rho_is_the_root(k):
    for seed in range(30):
        p, q = pair(seed)
        rho, beta = scale(p, q, k)
        assert 1 <= rho <= k
        assert 1 - (1 - beta) ** k == pytest.approx(rho * beta, abs=1e-9)
        left = p - torch.minimum(q, p / rho) * (1 - (1 - beta) ** k) / beta
        assert float(left.min()) > -1e-9, "the residual is a law at rho*"
    worse = [
        float((p - torch.minimum(q, p / (0.9 * r)) * (1 - (1 - b) ** k) / b).min())
        for p, q in map(pair, range(30))
        for r in [scale(p, q, k)[0]]
        for b in [float(torch.minimum(q, p / (0.9 * r)).sum())]
    ]
    assert min(worse) < -1e-3, "a smaller scale takes more than p has"


def test_limits_of_the_scale():
    p, q = pair(1)
    assert scale(p, q, 1)[0] == 1.0
    same, beta = scale(p, p, 4)
    assert same == pytest.approx(1.0, abs=1e-4) and beta == pytest.approx(1.0, abs=1e-4)
    apart = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    assert scale(*apart, 3)[1] == 0.0


def siblings_tree(tokens, laws, with_replacement: bool) -> DraftTree:
    tokens = torch.tensor(tokens)
    return DraftTree(tokens, (-1,) * len(tokens), laws, with_replacement=with_replacement)


@pytest.mark.parametrize("rule", ["spectr", "rsd", "multi_round"])
def test_one_draft_is_plain_rejection(rule):
    """Chance and residual are those of the rule for chains, to the last digit that counts."""
    plain, several = make_method("verifier", "rejection"), make_method("verifier", rule)
    for seed, token in itertools.product(range(10), range(4)):
        p, q = pair(seed)
        tree = siblings_tree([token], q[None], True)
        rows = torch.stack((p, p.flip(0)))
        a, b = plain.verify(tree, rows), several.verify(tree, rows)
        assert torch.allclose(a.stop, b.stop, atol=1e-12)
        for row in a.stop.nonzero().flatten().tolist():
            assert torch.allclose(a.bonus(row), b.bonus(row), atol=1e-9)


def test_every_token_drafted_once_is_always_met():
    """RSD with k = v: whatever p is, its draw is among the siblings."""
    rule = make_method("verifier", "rsd")
    for seed, order in itertools.product(range(5), itertools.permutations(range(4))):
        p, q = pair(seed)
        tree = siblings_tree(list(order), shrinking(q, torch.tensor(order)), False)
        assert float(rule.verify(tree, p.expand(5, -1)).stop[0]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_acceptance_lies_between_one_draft_and_the_optimum(k):
    rule = make_method("verifier", "spectr")
    before = None
    for count in range(1, k + 1):
        rates = []
        for seed in range(8):
            p, q = pair(seed)
            rate = sum(
                chance * (1 - float(rule.verify(tree, p.expand(count + 1, -1)).stop[0]))
                for tree, chance in every_draft((-1,) * count, lambda text, q=q: q, INDEPENDENT)
            )
            best = optimal_acceptance(p, q, count, "independent")
            single = float(torch.minimum(p, q).sum())
            assert single - 1e-12 <= rate <= best + 1e-9
            assert rate >= (1 - 1 / torch.e) * best
            rates.append(rate)
        assert before is None or all(a <= b + 1e-12 for a, b in zip(before, rates, strict=True))
        before = rates
