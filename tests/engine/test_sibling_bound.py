"""The bound beside a recorded node: the optimum where the laws are whole, an interval else."""

from __future__ import annotations

import msgspec
import pytest
import torch

from workbench.core import siblings
from workbench.core.bounds import optimal_acceptance
from workbench.core.decoding import Budget
from workbench.core.errors import WorkbenchError
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.core.trace import Forwards, Limits, Ms, Round, Top
from workbench.engine.decode import Decoding, decode
from workbench.engine.replay import acceptance_by_law
from workbench.engine.sibling_bound import sibling_bound
from workbench.testing.drafter_runs import Granted
from workbench.testing.toy_models import ToyModel

V = 12
DRAWN = {
    "independent": "with_replacement",
    "without_replacement": "without_replacement",
    "top_plus_one": "without_replacement",
}


def law(seed: int) -> torch.Tensor:
    noise = torch.randn(V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (1.5 * noise).softmax(0)


def top(law: torch.Tensor, count: int) -> Top:
    kept = law.topk(count)
    return Top(kept.indices.tolist(), kept.values.tolist())


def recorded(p: torch.Tensor, drawn: siblings.Siblings | None, kind: str, count: int) -> Round:
    """One round with siblings below the root, of whose laws ``count`` tokens are kept."""
    tokens = drawn.tokens.tolist() if drawn else [3, 7]
    n, laws = len(tokens), drawn.laws if drawn else []
    return Round(
        index=0, start=1, root=0, tokens=tokens, parent=[-1] * n, drawn=kind, accept=[0.0] * n,
        stop=[1.0, *[0.0] * n], uniform=0.5, path=[], bonus=1, emitted=[1], budget=Limits(1, n, n),
        ms=Ms(1.0, 1.0, 0.0, 0.0), forwards=Forwards(1, 1), p_node=p[tokens].tolist(),
        q_node=[float(laws[i, t]) for i, t in enumerate(tokens)] if drawn else None,
        p_top=[top(p, count)] * (n + 1),
        q_top=[top(law, count) for law in laws],
    )  # fmt: skip


def draw(sampler: str, q: torch.Tensor, k: int, seed: int) -> siblings.Siblings:
    uniforms = torch.rand(V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if sampler == "independent":
        return siblings.independent(q, uniforms[:k])
    if sampler == "without_replacement":
        return siblings.without_replacement(q, uniforms, k)
    return siblings.top_and_one(q, uniforms[:1], k)


@pytest.mark.parametrize("sampler", DRAWN)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_whole_laws_give_the_optimum_and_parts_an_interval_around_it(sampler, k):
    widths = []
    for seed in range(6):
        p, q = law(seed), law(seed + 100)
        wanted = optimal_acceptance(p, q, k, sampler)
        for count in (V, 6, 3, 1):
            done = recorded(p, draw(sampler, q, k, seed), DRAWN[sampler], count)
            for node in range(len(done.tokens)):
                found = sibling_bound(done, node)
                assert found.siblings == k
                assert found.low - 1e-6 <= wanted <= found.high + 1e-6, (seed, count)
                if count == V:
                    assert found.low == pytest.approx(wanted, abs=1e-6)
                    assert found.high == pytest.approx(wanted, abs=1e-6)
                widths.append(found.high - found.low)
    assert max(widths) > 0.02, "no record was short of anything"
    assert sum(width < 0.9 for width in widths) > len(widths) / 2, "the intervals say nothing"


def test_chosen_siblings_are_kept_with_their_mass_of_p_however_little_is_recorded():
    p = law(5)
    found = sibling_bound(recorded(p, None, "chosen", 1), 0)
    assert found.low == found.high == pytest.approx(float(p[3] + p[7]))


def test_a_record_without_laws_has_no_bound():
    done = recorded(law(1), None, "chosen", 1)
    with pytest.raises(WorkbenchError, match="record_top"):
        sibling_bound(msgspec.structs.replace(done, p_top=[], q_top=[]), 0)


def test_no_rule_exceeds_it_on_the_average_over_drafts():
    """Over many drafts of one place the best rule for one draw reaches the bound: it is tight."""
    draws, kept, bounds, rule = 400, 0.0, set(), make_method("verifier", "rejection")
    for seed in range(draws):
        run = Decoding(
            ToyModel.random(V, seed=1, scale=1.5).session(),
            make_method("drafter", "draft_model", siblings=1),
            rule,
            Granted(Budget(1, 1, 1)),
            Sampling(1.0, seed=seed),
            2,
            draft=ToyModel.random(V, seed=2, scale=1.2).session(),
            record_top=V,
        )
        done = next(iter(decode(run, [0, 1, 2])))
        bounds.add(round(sibling_bound(done, 0).high, 9))
        kept += acceptance_by_law(done, 0)[rule.card.title] / draws
    assert len(bounds) == 1
    assert kept == pytest.approx(bounds.pop(), abs=5 * 0.5 / draws**0.5)
