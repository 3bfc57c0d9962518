"""The cost of verification on a mixture: formulas, counts from the routers, sentences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.bench.expert_cost import (
    Shape,
    TreePoint,
    stops_paying,
    tree_costs,
    uniform_union,
    verified,
)
from workbench.core.errors import BadInput, ModelError
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.engine.run import RunSettings

PROMPT = "def add(a, b):\n    return a + b\n\ndef add(a, b):\n    ret"


@pytest.mark.parametrize(("experts", "k", "rows"), [(8, 2, 5), (16, 2, 3), (8, 1, 9), (64, 8, 4)])
def test_the_even_formula_is_what_drawing_gives(experts, k, rows):
    rng = np.random.default_rng(0)
    drawn = [
        len({e for _ in range(rows) for e in rng.choice(experts, k, replace=False)})
        for _ in range(4000)
    ]
    assert np.mean(drawn) == pytest.approx(uniform_union(experts, k, rows), rel=0.01)


def test_one_row_costs_one_token_and_all_experts_cost_the_most():
    shape = Shape(layers=4, experts=8, k=2, expert_bytes=100, dense_bytes=1200)
    assert uniform_union(8, 2, 1) == pytest.approx(2)
    assert shape.expert_share == pytest.approx(800 / 2000)
    assert shape.cost_ratio(2) == 1 and shape.cost_ratio(8) == pytest.approx(0.6 + 0.4 * 4)


def test_the_shape_counts_what_a_pass_reads(loaded):
    model = loaded("mixtral")
    shape = Shape.of(model)
    every = sum(p.nbytes for p in model.network.parameters())
    table = model.network.get_input_embeddings().weight.nbytes
    buffers = sum(b.nbytes for b in model.network.buffers())
    assert shape.dense_bytes == every + buffers - table - 3 * 4 * shape.expert_bytes
    with pytest.raises(ModelError, match="no experts"):
        Shape.of(loaded("llama"))


def test_distinct_experts_are_those_that_the_eager_loop_visits(loaded):
    """Count the expert products themselves, not the indices that the record is made from."""
    model = loaded("qwen3_moe")
    model.network.set_experts_implementation("eager")
    policy = make_method("policy", "fixed", depth=3, nodes=6, width=3)
    settings = RunSettings(
        model, PROMPT, "token_recycling", "exact_match", policy, max_new_tokens=24
    )
    visits, products = [], 0
    linear = torch.nn.functional.linear

    def counting(x, weight, bias=None):
        nonlocal products
        products += weight.shape == (64, 32)  # down projections: one an expert that is visited
        return linear(x, weight, bias)

    def note(module, args, output):
        nonlocal products
        visits.append(products)
        products = 0

    handle = model.network.model.layers[0].mlp.register_forward_hook(note)
    torch.nn.functional.linear = counting
    try:
        passes = verified(settings)
    finally:
        torch.nn.functional.linear = linear
        handle.remove()
        model.network.set_experts_implementation("grouped_mm")
    # between two calls of layer 0 the other two layers ran too, so sum over layers, shifted by one
    total = [sum(one.record.distinct().values()) for one in passes]
    first = [one.record.distinct()[0] for one in passes]
    tail = visits[-len(passes) :]
    for at in range(1, len(passes)):
        assert tail[at] == first[at] + total[at - 1] - first[at - 1]
    assert any(len(one.round.tokens) > 1 for one in passes)


def test_points_of_a_real_run(loaded):
    points = tree_costs(loaded("olmoe"), [PROMPT], sizes=(1, 4, 12), new_tokens=24)
    for one in points:
        assert 2 <= one.distinct <= 4 and one.unneeded <= one.distinct  # k = 2 of 4 experts
        assert one.distinct == pytest.approx(np.mean(one.by_layer))
        assert one.even <= 4 and one.independent <= one.even + 1e-6
        assert one.emitted >= 1 and one.gain <= one.dense_gain
    assert points[0].rows <= points[-1].rows and points[0].distinct <= points[-1].distinct
    assert points[0].cost_ratio <= points[-1].cost_ratio


def test_a_greedy_text_is_the_same_whatever_the_tree(loaded):
    model, texts = loaded("qwen2_moe"), set()
    for nodes in (1, 6):
        policy = make_method("policy", "fixed", depth=3, nodes=nodes, width=3)
        settings = RunSettings(
            model, PROMPT, "token_recycling", "multi_round", policy, Sampling(0.0), 20
        )
        texts.add(tuple(t for one in verified(settings) for t in one.round.emitted))
    assert len(texts) == 1


def a_point(nodes: int, emitted: float, cost: float) -> TreePoint:
    gain = emitted / cost
    return TreePoint(nodes, nodes + 1, 3, (3,), 1, 4, 4, emitted, cost, gain, emitted, 1.0)


def test_the_sentence_says_when_it_stops_paying():
    points = [a_point(1, 1.5, 1.1), a_point(4, 2.4, 1.4), a_point(16, 2.6, 2.2)]
    assert "up to 4 nodes" in stops_paying(points) and "grow it to 16" in stops_paying(points)
    assert "No tree pays" in stops_paying([a_point(2, 1.1, 1.5)])


def test_no_prompts_are_refused(loaded):
    with pytest.raises(BadInput, match="prompts"):
        tree_costs(loaded("olmoe"), [])
