"""The route predictor: recall by hand, no look into the future, the law it is fitted by."""

from __future__ import annotations

import inspect

import pytest
import torch

from workbench.core.errors import BadInput
from workbench.core.routing import LayerRouting, Routed, RoutingRecord
from workbench.models.route_predictor import RoutePredictor, fit_predictor

EMBEDDING = torch.randn(32, 16, generator=torch.Generator().manual_seed(5))


def record(rows: list[list[int]], tokens=None, layers=(0,), experts: int = 4) -> RoutingRecord:
    """Layers in which token t goes to the experts of row t; a row may be shorter (weight 0)."""
    wide = max(map(len, rows))
    indices = torch.tensor([row + row[:1] * (wide - len(row)) for row in rows])
    used = torch.tensor([[1.0] * len(row) + [0.0] * (wide - len(row)) for row in rows])
    one = LayerRouting.of(torch.zeros(len(rows), experts), Routed(used, indices))
    return RoutingRecord(dict.fromkeys(layers, one), tuple(tokens or range(len(rows))))


def test_recall_counts_experts_and_not_tokens():
    """Of seven experts that were used six are guessed; three of four tokens are wholly right."""
    always = RoutePredictor("frequency", (0,), torch.tensor([[9.0, 8.0, 7.0, 1.0]]))
    rows = [[0, 1], [1, 0], [2, 0], [0]]
    assert always.recall(record(rows)) == {0: pytest.approx(6 / 7)}
    assert always.plan([0, 0], 2) == {0: [[0, 1], [0, 1]]}
    assert always.plan([0], 9) == {0: [[0, 1, 2, 3]]}  # no more than there are


def test_recall_and_plan_are_the_layers_own():
    two = RoutePredictor("frequency", (1, 5), torch.tensor([[9.0, 8, 0, 0], [0, 0, 8.0, 9]]))
    used = record([[0, 1], [0, 1]], layers=(1, 5))
    assert two.recall(used) == {1: 1.0, 5: 0.0}
    assert two.plan([7], 1) == {1: [[0]], 5: [[3]]}


def test_the_context_reads_what_came_before_and_nothing_later():
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, 32, (12,), generator=generator).tolist()
    rows = torch.randint(0, 4, (12, 1), generator=generator).tolist()
    made = {
        kind: fit_predictor(EMBEDDING, [record(rows, tokens)], kind, steps=3, width=16)
        for kind in ("token", "context")
    }
    later, earlier = [*tokens[:-1], (tokens[-1] + 1) % 32], [(tokens[0] + 1) % 32, *tokens[1:]]
    for kind, predictor in made.items():
        plain = predictor.scores(tokens)
        torch.testing.assert_close(predictor.scores(later)[:-1], plain[:-1])
        assert not torch.allclose(predictor.scores(later)[-1], plain[-1])
        reads = not torch.allclose(predictor.scores(earlier)[-1], plain[-1])
        assert reads == (kind == "context")


def test_several_experts_of_a_token_are_all_learnt():
    """Multi-label: three experts of a token are three answers, not one shared among them."""
    tokens = [0, 1] * 8
    rows = [[0, 1, 2], [3, 2, 0]] * 8
    predictor = fit_predictor(EMBEDDING, [record(rows, tokens)], "token", width=16)
    chance = predictor.scores([0, 1])[:, 0].sigmoid()
    wanted = torch.tensor([[1.0, 1, 1, 0], [1, 0, 1, 1]])
    torch.testing.assert_close(chance, wanted, atol=0.1, rtol=0)


def test_the_defaults_and_that_the_seed_alone_decides():
    said = inspect.signature(fit_predictor).parameters
    assert [said[name].default for name in ("steps", "width", "rate")] == [300, 128, 3e-3]
    seen = [record([[0], [1], [2]], [3, 4, 5])]
    one, again, other = (
        fit_predictor(EMBEDDING, seen, steps=2, width=8, seed=seed).scores([3, 4])
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)
    with pytest.raises(BadInput, match="predictor='oracle'"):
        fit_predictor(EMBEDDING, seen, "oracle")
