"""A tree's cost on a mixture by hand, and the same from self-drafting and shuffled tokens."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from workbench.bench.expert_cost import Pass, Shape, point, stops_paying, uniform_union, verified
from workbench.core.method import make_method
from workbench.core.routing import LayerRouting, Routed, RoutingRecord
from workbench.engine.dials import weight_bytes
from workbench.engine.run import RunSettings
from workbench.models.routers import record_routing

PROMPT = "def add(a, b):\n    return a + b\n\ndef add(a, b):\n    ret"


def record(rows: list[list[int]], experts: int) -> RoutingRecord:
    wide = max(map(len, rows))
    indices = torch.tensor([row + row[:1] * (wide - len(row)) for row in rows])
    used = torch.tensor([[1.0] * len(row) + [0.0] * (wide - len(row)) for row in rows])
    layer = LayerRouting.of(torch.zeros(len(rows), experts), Routed(used, indices))
    return RoutingRecord({0: layer})


def one(rows, path=(), emitted: int = 1, drafts: int = 0, ms: float = 1.0, experts: int = 4):
    """A verification pass: routes of the root and of every node, and what came of it."""
    done = SimpleNamespace(
        tokens=[0] * (len(rows) - 1),
        path=list(path),
        emitted=[0] * emitted,
        forwards=SimpleNamespace(draft=drafts),
        ms=SimpleNamespace(verify=ms),
    )
    return Pass(done, record(rows, experts))


@pytest.mark.parametrize(
    ("experts", "k", "ratios"),
    [
        (8, 2, (1.75, 2.31, 3.05, 3.70)),
        (64, 8, (1.88, 2.64, 3.90, 5.59)),
        (128, 8, (1.94, 2.82, 4.41, 7.05)),
    ],
)
def test_the_unions_of_even_routing(experts, k, ratios):
    found = [uniform_union(experts, k, rows) / k for rows in (2, 3, 5, 9)]
    assert found == pytest.approx(ratios, abs=6e-3)
    grown = [uniform_union(experts, k, rows) for rows in range(1, 200)]
    assert grown[0] == pytest.approx(k) and grown[-1] <= experts
    assert all(a < b or b == pytest.approx(experts) for a, b in pairwise(grown))


@pytest.mark.parametrize(
    ("kept", "gains"),
    [(0.6, (0.91, 0.81, 0.66)), (0.8, (1.03, 1.01, 0.96)), (0.9, (1.09, 1.12, 1.16))],
)
def test_speed_is_tokens_over_the_bytes_of_the_union_and_of_the_drafts(kept, gains):
    """E=64, k=8, experts 0.8 of a token's bytes, a draft pass 0.05 of them; even routing."""
    shape = Shape(1, 64, 8, expert_bytes=100, dense_bytes=200, draft_bytes=50)
    assert shape.expert_share == pytest.approx(0.8) and shape.draft_ratio() == pytest.approx(0.05)
    found = []
    for length in (1, 2, 4):
        emitted = (1 - kept ** (length + 1)) / (1 - kept)
        cost = shape.cost_ratio(uniform_union(64, 8, length + 1))
        found.append(emitted / (cost + length * shape.draft_ratio()))
    assert found == pytest.approx(gains, abs=6e-3)


def test_a_point_by_hand():
    passes = [
        one([[0, 1], [1, 2], [3, 2]], path=[0], emitted=2, drafts=3, ms=4.0),
        one([[0, 1], [0, 1], [0, 3]], path=[], emitted=1, drafts=1, ms=2.0),
    ]
    shape = Shape(layers=1, experts=4, k=2, expert_bytes=30, dense_bytes=40, draft_bytes=10)
    found = point(2, passes, shape)
    assert (found.nodes, found.rows, found.emitted, found.verify_ms) == (2, 3, 1.5, 3.0)
    assert found.distinct == pytest.approx((4 + 3) / 2) and found.by_layer == (3.5,)
    # the first pass's rejected row alone asked for 3, the second's kept root for 0 and 1 of 0, 1, 3
    assert found.unneeded == pytest.approx((1 + 1) / 2)
    assert found.even == pytest.approx(uniform_union(4, 2, 3))
    shares = np.array([4, 4, 2, 2]) / 6
    assert found.independent == pytest.approx(float((1 - (1 - shares) ** 3).sum()))
    # of a token's 100 bytes 60 are experts; a pass reads 3.5 of them instead of 2, plus 2 drafts
    cost = 0.4 + 0.6 * 3.5 / 2
    assert found.cost_ratio == pytest.approx(cost)
    assert found.gain == pytest.approx(1.5 / (cost + 2 * 0.1))
    assert found.dense_gain == pytest.approx(1.5 / (1 + 2 * 0.1))


def test_a_rule_that_runs_fewer_experts_is_measured_against_its_own_plain_token():
    shape = Shape(layers=1, experts=4, k=2, expert_bytes=30, dense_bytes=40, draft_bytes=14)
    found = point(1, [one([[0], [1]], emitted=1, drafts=1)], shape)
    # its token reads 70 bytes, its pass 100, its draft 14
    assert found.cost_ratio == pytest.approx(100 / 70)
    assert found.gain == pytest.approx(1 / (100 / 70 + 0.2))


def drawn(generator, law, order=None) -> list[list[int]]:
    rows = [torch.multinomial(law, 2, generator=generator).tolist() for _ in range(900)]
    return rows if order is None else [rows[at] for at in order]


def test_tokens_in_any_order_meet_the_formula_and_neighbours_alike_do_not():
    """What is left between the two curves is what neighbouring tokens share."""
    generator = torch.Generator().manual_seed(4)
    rows = drawn(generator, torch.tensor([8.0, 5, 3, 2, 1, 1, 1, 1]))
    shape = Shape(1, 8, 2, 1, 1)

    def pair(rows):
        groups = [rows[at : at + 5] for at in range(0, 900, 5)]
        found = point(4, [one(group, experts=8) for group in groups], shape)
        return found.distinct, found.independent, found.even

    distinct, independent, even = pair(rows)
    assert distinct == pytest.approx(independent, rel=0.02) and independent < 0.9 * even
    alike, same, _ = pair(sorted(rows))
    assert same == pytest.approx(independent) and alike < 0.6 * same


def test_what_a_pass_of_the_draft_reads_leaves_its_table_out(loaded):
    target, draft = loaded("mixtral"), loaded("llama")  # neither ties its head to its table
    shape = Shape.of(target, draft)
    table = draft.network.get_input_embeddings().weight.nbytes
    assert shape.draft_bytes == weight_bytes(draft) - table
    assert Shape.of(target).draft_bytes == 0
    active = shape.dense_bytes + shape.layers * 2 * shape.expert_bytes
    assert shape.draft_ratio() == pytest.approx(shape.draft_bytes / active)


def test_passes_in_which_the_target_drafts_for_itself_are_not_taken_for_verifications(loaded):
    model = loaded("qwen3_moe", num_hidden_layers=4)
    policy = make_method("policy", "fixed", depth=3, nodes=3, width=1)
    swift = make_method("drafter", "swift", ratio=0.5, stop=0.0, window=4)
    settings = RunSettings(model, PROMPT, swift, "exact_match", policy, max_new_tokens=24)
    passes = verified(settings)
    assert sum(len(p.round.emitted) for p in passes) == 24  # every round's, none is lost
    for each in passes:
        assert list(each.record.layers) == [0, 1, 2, 3]
        assert each.record.token_count == len(each.round.tokens) + 1
    assert max(len(p.round.tokens) for p in passes) == 3
    # the root's row of a verification is the routing of that token in a plain pass over the text
    ids = torch.tensor([model.encode(PROMPT)])
    plain = record_routing(model, ids[0].tolist())
    for number, layer in passes[0].record.layers.items():
        torch.testing.assert_close(
            layer.logits[0], plain.layers[number].logits[-1], atol=1e-4, rtol=1e-4
        )


def test_the_best_tree_is_named_with_its_own_figures():
    shape = Shape(layers=1, experts=4, k=2, expert_bytes=30, dense_bytes=40)
    small = point(1, [one([[0, 1], [0, 1]], path=[0], emitted=2)], shape)
    large = point(3, [one([[0, 1], [0, 1], [2, 3], [2, 3]], path=[0], emitted=2)], shape)
    said = stops_paying([small, large])
    assert "up to 1 nodes: 2.00 tokens a pass for 1.00 times the bytes, projected 2.00" in said
    assert large.cost_ratio == pytest.approx(1.6) and large.gain == pytest.approx(1.25)
