"""Drawing siblings: counted frequencies against laws written down by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from workbench.core import siblings
from workbench.testing.oracles import g_limit, g_statistic

LAW = torch.tensor([0.45, 0.3, 0.2, 0.05], dtype=torch.float64)
DRAWS = 8_000


def uniforms(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def check_counts(seen: Counter, chances: dict) -> None:
    """The counts are those of the chances (G test at five sigma), and nothing else occurred."""
    assert set(seen) <= {key for key, chance in chances.items() if chance > 0}
    assert sum(chances.values()) == pytest.approx(1)
    keys, total = list(chances), sum(seen.values())
    g, freedom = g_statistic([seen[key] for key in keys], [total * chances[key] for key in keys])
    assert g < g_limit(freedom), f"G {g:.1f} at {freedom} degrees of freedom"


def plackett_luce(law: torch.Tensor, k: int) -> dict[tuple[int, ...], float]:
    """Chance of every ordered draw of k tokens without replacement."""
    chances = {}
    for order in itertools.permutations(range(len(law)), k):
        left, chance = 1.0, 1.0
        for token in order:
            chance *= float(law[token]) / left if left > 1e-12 else 0.0
            left -= float(law[token])
        chances[order] = chance
    return chances


@pytest.mark.parametrize("k", [1, 2, 3])
def test_gumbel_top_k_draws_in_order_without_replacement(k):
    seen = Counter()
    for noise in uniforms(DRAWS, 4):
        drawn = siblings.without_replacement(LAW, noise, k)
        seen[tuple(drawn.tokens.tolist())] += 1
    check_counts(seen, plackett_luce(LAW, k))


def test_the_same_count_catches_tokens_in_another_order():
    """The check bites: sorted by id, as a careless implementation would return them."""
    seen = Counter()
    for noise in uniforms(DRAWS, 4):
        tokens = siblings.without_replacement(LAW, noise, 2).tokens.sort().values
        seen[tuple(tokens.tolist())] += 1
    with pytest.raises(AssertionError, match="degrees of freedom"):
        check_counts(seen, plackett_luce(LAW, 2))


def test_each_law_is_what_the_earlier_draws_leave():
    drawn = siblings.without_replacement(LAW, uniforms(4), 4)
    for place, law in enumerate(drawn.laws):
        wanted = LAW.clone()
        wanted[drawn.tokens[:place]] = 0
        assert torch.allclose(law, wanted / wanted.sum())
        assert law[drawn.tokens[place]] > 0


def test_no_more_siblings_than_tokens_that_can_occur():
    law = torch.tensor([0.7, 0.0, 0.3, 0.0], dtype=torch.float64)
    for noise in uniforms(50, 4):
        tokens = siblings.without_replacement(law, noise, 4).tokens
        assert sorted(tokens.tolist()) == [0, 2]


def test_independent_draws_may_repeat():
    seen = Counter()
    for noise in uniforms(DRAWS, 2):
        seen[tuple(siblings.independent(LAW, noise).tokens.tolist())] += 1
    chances = {(a, b): float(LAW[a] * LAW[b]) for a, b in itertools.product(range(4), repeat=2)}
    check_counts(seen, chances)


def test_top_and_one_draws_only_its_last():
    seen = Counter()
    for noise in uniforms(DRAWS, 1):
        drawn = siblings.top_and_one(LAW, noise, 3)
        assert drawn.laws[0].tolist() == [1, 0, 0, 0] and drawn.laws[1].tolist() == [0, 1, 0, 0]
        seen[tuple(drawn.tokens.tolist())] += 1
    check_counts(seen, {(0, 1, 2): 0.8, (0, 1, 3): 0.2})


def one_level(laws, log_prob, value, width, seed):
    noise = uniforms(*laws.shape, seed=seed)
    return siblings.stochastic_beam(laws, log_prob, value, noise, width)


def test_the_best_child_has_its_parents_value():
    """Conditioned Gumbels: over all of one parent's children the largest is the parent's own."""
    laws = torch.stack([LAW, LAW.flip(0), torch.tensor([0.1, 0.1, 0.4, 0.4]).double()])
    log_prob = torch.tensor([-0.2, -1.5, -3.0], dtype=torch.float64)
    value = torch.tensor([1.3, 0.1, -40.0], dtype=torch.float64)
    for seed in range(40):
        beam = one_level(laws, log_prob, value, 12, seed)
        assert len(beam.value) == 12
        assert beam.value.tolist() == sorted(beam.value.tolist(), reverse=True)
        for parent in range(3):
            mine = beam.parent == parent
            assert float(beam.value[mine].max()) == pytest.approx(float(value[parent]), abs=1e-6)
            for token, logp in zip(beam.token[mine], beam.log_prob[mine], strict=True):
                wanted = log_prob[parent] + laws[parent, token].log()
                assert float(logp) == pytest.approx(float(wanted))


def test_values_stay_finite_where_exponentials_overflow():
    laws = torch.stack([LAW, LAW])
    extreme = torch.tensor([-900.0, 900.0], dtype=torch.float64)
    beam = one_level(laws, extreme.clone(), extreme, 8, 3)
    assert bool(torch.isfinite(beam.value).all())
    assert float(beam.value[beam.parent == 0].max()) == pytest.approx(-900.0)


def test_no_sequence_comes_twice_and_one_beam_is_plain_drawing():
    seen = Counter()
    zero = torch.zeros(1, dtype=torch.float64)
    for seed in range(4000):
        first = one_level(LAW[None], zero, zero, 1, seed)
        (token,) = first.token.tolist()
        second = one_level(
            LAW.flip(0)[None] if token else LAW[None], first.log_prob, first.value, 1, seed + 9999
        )
        seen[token, int(second.token)] += 1
        wide = one_level(LAW[None], zero, zero, 4, seed)
        assert len(set(wide.token.tolist())) == 4
    chances = {
        (a, b): float(LAW[a] * (LAW.flip(0) if a else LAW)[b])
        for a, b in itertools.product(range(4), repeat=2)
    }
    check_counts(seen, chances)


def test_a_beam_draws_whole_sequences_without_replacement():
    """Two levels, two beams: ordered pairs of sequences have their Plackett-Luce chances."""
    root = torch.tensor([0.7, 0.3], dtype=torch.float64)
    below = torch.tensor([[0.6, 0.4], [0.2, 0.8]], dtype=torch.float64)
    joint = (root[:, None] * below).flatten()
    seen = Counter()
    zero = torch.zeros(1, dtype=torch.float64)
    for seed in range(8_000):
        first = one_level(root[None], zero, zero, 2, seed)
        second = one_level(below[first.token], first.log_prob, first.value, 2, seed + 50_000)
        tokens = first.token[second.parent] * 2 + second.token
        seen[tuple(tokens.tolist())] += 1
    check_counts(seen, plackett_luce(joint, 2))


def test_gumbel_noise_is_gumbel():
    noise = siblings.gumbel(uniforms(200_000))
    assert float(noise.mean()) == pytest.approx(0.57722, abs=0.02)  # Euler's constant
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, rel=0.03)
    assert bool(torch.isfinite(siblings.gumbel(torch.tensor([0.0]))).all())
