"""The optimal acceptance rate against brute force, the transport problem and the rules."""

import pytest
import torch

from workbench.core.bounds import SAMPLERS, bound, optimal_acceptance, top_plus_one
from workbench.core.errors import BadInput
from workbench.core.method import make_method
from workbench.core.tree import DraftTree
from workbench.testing import oracles, transport

SCHEME = dict(zip(SAMPLERS, oracles.SCHEMES, strict=True))
# The race is integrated on a grid; everything else is exact.
SLACK = {"independent": 1e-9, "without_replacement": 2e-5, "top_plus_one": 1e-9}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_three_ways_to_the_same_rate(sampler, k):
    for seed in range(12):
        p, q = transport.random_pair(4, seed, 1.5)
        rate = optimal_acceptance(p, q, k, sampler)
        sets = transport.best_by_sets(p.tolist(), q.tolist(), k, sampler)
        program = transport.best_by_transport(p.tolist(), q.tolist(), k, sampler)
        assert sets == pytest.approx(program, abs=1e-9)
        assert rate == pytest.approx(sets, abs=SLACK[sampler])


def test_ascending_order_would_be_wrong(monkeypatch):
    monkeypatch.setattr(
        "workbench.core.bounds._by_ratio", lambda p, q, certain: (q / p).sort().indices
    )
    wrong = 0
    for seed in range(12):
        p, q = transport.random_pair(4, seed, 1.5)
        exact = transport.best_by_sets(p.tolist(), q.tolist(), 2, "independent")
        wrong += abs(optimal_acceptance(p, q, 2, "independent") - exact) > 1e-6
    assert wrong >= 10


def acceptance(verifier: str, p: torch.Tensor, q: torch.Tensor, k: int, sampler: str) -> float:
    """Chance that the output is one of k siblings, over every draft of the sampler."""
    rule, met = make_method("verifier", verifier), 0.0
    for tree, chance in oracles.every_draft((-1,) * k, lambda text: q, SCHEME[sampler]):
        verdict = rule.verify(tree, p.expand(len(tree) + 1, -1))
        stay = float(verdict.stop[0])
        carried = tree.tokens.unique()
        met += chance * (1 - stay + stay * float(verdict.bonus(0)[carried].sum()))
    return met


@pytest.mark.parametrize(
    "verifier, sampler",
    [
        ("multi_round", "independent"),
        ("spectr", "independent"),
        ("rsd", "without_replacement"),
        ("multi_round", "without_replacement"),
        ("mdsd_optimal", "top_plus_one"),
        ("multi_round", "top_plus_one"),
    ],
)
def test_no_rule_beats_its_bound(verifier, sampler):
    below = 0
    for seed in range(60):
        p, q = transport.random_pair(4, seed)
        for k in (1, 2, 3):
            limit = optimal_acceptance(p, q, k, sampler)
            got = acceptance(verifier, p, q, k, sampler)
            assert got <= limit + (SLACK[sampler] if k > 1 else 1e-12)
            below += got < limit - 1e-6
    if verifier == "mdsd_optimal":
        assert below == 0, "this rule reaches its bound"
    else:
        assert below > 60, "a rule that is not optimal must stay below somewhere"


def test_means_over_random_pairs_are_those_of_the_card():
    """300 random pairs, k = 2, v = 4: the order of the rules and their distance."""
    means: dict[str, float] = {}
    pairs = [transport.random_pair(4, seed, 1.0) for seed in range(300)]
    for verifier, sampler in (
        ("multi_round", "independent"),
        ("spectr", "independent"),
        ("rsd", "without_replacement"),
        ("mdsd_optimal", "top_plus_one"),
    ):
        rates = [acceptance(verifier, p, q, 2, sampler) for p, q in pairs]
        means[verifier] = sum(rates) / len(rates)
        best = [optimal_acceptance(p, q, 2, sampler) for p, q in pairs]
        means[f"best {sampler}"] = sum(best) / len(best)
        if verifier == "spectr":
            rounds = [acceptance("multi_round", p, q, 2, sampler) for p, q in pairs]
            worse = sum(a < b - 1e-12 for a, b in zip(rates, rounds, strict=True))
            assert worse <= 6, f"k-SEQ below multi-round on {worse} of 300 pairs"
            floor = min(a / b for a, b in zip(rates, best, strict=True))
            assert floor > 1 - 1 / 2.718281828, "the guarantee of k-SEQ"
    assert means["multi_round"] < means["spectr"] < means["best independent"]
    assert means["best independent"] < means["rsd"] < means["best without_replacement"]
    assert means["mdsd_optimal"] == pytest.approx(means["best top_plus_one"], abs=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_limits(sampler):
    p, q = transport.random_pair(5, 3)
    single = float(torch.minimum(p, q).sum())
    assert optimal_acceptance(p, q, 1, sampler) == pytest.approx(single, abs=SLACK[sampler])
    assert optimal_acceptance(p, p, 2, sampler) == pytest.approx(1, abs=SLACK[sampler])
    apart = torch.tensor([0.5, 0.5, 0, 0.0]), torch.tensor([0, 0, 0.3, 0.7])
    assert optimal_acceptance(*apart, 2, sampler) == pytest.approx(0, abs=SLACK[sampler])
    if sampler == "without_replacement":
        assert optimal_acceptance(p, q, 5, sampler) == pytest.approx(1, abs=1e-5)
    found = bound(p, q, 2, sampler)
    gap = float(found.target[found.cut] - found.drafts[found.cut])
    assert found.rate == pytest.approx(1 + gap)
    assert (found.drafts.diff() >= -1e-9).all() and float(found.target[-1]) == pytest.approx(1)


def test_large_vocabularies_are_quick_and_ordered():
    generator = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(4096, generator=generator, dtype=torch.float64)
    noisy = logits + torch.randn(4096, generator=generator, dtype=torch.float64)
    p, q = logits.softmax(-1), noisy.softmax(-1)
    rates = [optimal_acceptance(p, q, k, "independent") for k in (1, 2, 4)]
    assert rates == sorted(rates)
    tops = optimal_acceptance(p, q, 4, "top_plus_one")
    law, certain = top_plus_one(q, 4)
    closed = float(p[certain].sum() + torch.minimum(p, law).sum())
    assert tops == pytest.approx(closed, abs=1e-12)


def test_bad_input():
    p = torch.tensor([0.5, 0.5])
    with pytest.raises(BadInput, match="sampler='best'"):
        bound(p, p, 1, "best")
    with pytest.raises(BadInput, match="k=0"):
        bound(p, p, 0, "independent")


def test_typical_is_lossy_and_says_so():
    """p = (.6, .3, .1), draft token 1 for certain: it is always kept, so the law is not p."""
    rule, p = make_method("verifier", "typical"), torch.tensor([[0.6, 0.3, 0.1]]).double()
    assert not rule.lossless
    tree = DraftTree(torch.tensor([1]), (-1,))
    verdict = rule.verify(tree, p.expand(2, -1))
    assert verdict.stop.tolist() == [0, 1]  # token 1 with certainty, though p gives it 0.3


def test_block_keeps_more_than_one_by_one():
    """The published example: chains of two over random laws, expected kept tokens never fewer."""
    block, chain = make_method("verifier", "block"), make_method("verifier", "rejection")
    gains = []
    for seed in range(40):
        p, q = transport.random_pair(3, seed, 1.5)
        kept = {"block": 0.0, "chain": 0.0}
        for tree, chance in oracles.every_draft((-1, 0), lambda text, q=q: q):
            rows = p.expand(3, -1)
            for name, rule in (("block", block), ("chain", chain)):
                stop = rule.verify(tree, rows).stop
                kept[name] += chance * float(stop[1] + 2 * stop[2])
        gains.append(kept["block"] - kept["chain"])
    assert min(gains) > -1e-12 and max(gains) > 0.02
