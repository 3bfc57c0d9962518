"""Knobs, trees and laws: checked against slow references and by hand."""

import math

import numpy as np
import pytest
import torch

from workbench.core.errors import BadInput, BadKnob, UnknownMethod
from workbench.core.method import find_method, make_method
from workbench.core.sampling import Sampling, draw, draw_one
from workbench.core.tree import DraftTree, shape_of
from workbench.testing import oracles


def test_unknown_names_offer_the_closest():
    with pytest.raises(UnknownMethod, match="token_recycling"):
        find_method("drafter", "token_recyling")
    with pytest.raises(BadKnob, match="harvest"):
        make_method("drafter", "token_recycling", harvst="all")


@pytest.mark.parametrize("value", [0, 33, 2.5, True, "8", None, math.nan, math.inf])
def test_a_bad_knob_names_itself_and_its_value(value):
    with pytest.raises(BadKnob, match=r"token_recycling\.k"):
        make_method("drafter", "token_recycling", k=value)


def test_knobs_read_from_text():
    knobs = {k.name: k for k in find_method("drafter", "token_recycling").knobs}
    assert knobs["k"].parse("4", "x") == 4
    assert knobs["harvest"].parse("accepted", "x") == "accepted"
    with pytest.raises(BadKnob):
        knobs["k"].parse("four", "x")
    with pytest.raises(BadKnob):
        knobs["harvest"].parse("some", "x")


def test_methods_are_frozen():
    with pytest.raises(AttributeError):
        make_method("policy", "fixed").depth = 3


def test_visibility_is_ancestry():
    rng = np.random.default_rng(0)
    for _ in range(50):
        parent = tuple(int(rng.integers(-1, node)) for node in range(int(rng.integers(0, 12))))
        shape = shape_of(parent)
        for row in range(len(parent) + 1):
            seen = {other for other in range(len(parent) + 1) if shape.visible[row, other]}
            above, at = {row}, row
            while at > 0:
                at = parent[at - 1] + 1
                above.add(at)
            assert seen == above
            assert shape.row_depth[row] == len(above) - 1


@pytest.mark.parametrize("parent", [(0,), (-1, 1), (-1, 2, 0), (-2,)])
def test_a_parent_must_precede_its_node(parent):
    with pytest.raises(BadInput, match="precede"):
        DraftTree(torch.zeros(len(parent), dtype=torch.long), parent)


def test_path_of_a_row():
    tree = DraftTree(torch.tensor([5, 6, 7, 8]), (-1, -1, 1, 2))
    assert tree.path_to(0) == []
    assert tree.path_to(4) == [1, 2, 3]
    assert tree.depth == (1, 1, 2, 3)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 3, 50])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.4, 1e-6])
def test_law_equals_the_slow_one(temperature, top_k, top_p):
    sampling = Sampling(temperature, top_k, top_p)
    generator = torch.Generator().manual_seed(1)
    for ties in (False, True):
        logits = torch.randn(6, generator=generator, dtype=torch.float64)
        if ties:
            logits[3] = logits[1]
        slow = torch.tensor(oracles.slow_law(logits.tolist(), sampling), dtype=torch.float64)
        torch.testing.assert_close(sampling.law(logits), slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"temperature": math.nan}, {"top_p": 0}, {"top_p": 1.5}]
)
def test_bad_sampling_names_the_value(bad):
    with pytest.raises(BadInput, match=next(iter(bad))):
        Sampling(**bad)


def test_draw_never_gives_an_impossible_token():
    law = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0])
    edges = torch.tensor([0.0, 0.24999, 0.25, 1 - 2**-53], dtype=torch.float64)
    assert draw(law.expand(4, -1), edges).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_draw_is_the_same_draw(dtype):
    generator = torch.Generator().manual_seed(5)
    for width in (1, 2, 7, 300):
        law = torch.rand(width, generator=generator, dtype=dtype) ** 4
        law[torch.rand(width, generator=generator) < 0.3] = 0
        law = law / law.sum() if law.sum() > 0 else torch.ones(width, dtype=dtype) / width
        uniforms = [0.0, 1 - 2**-53, *torch.rand(40, generator=generator).tolist()]
        wanted = [int(draw(law, torch.tensor(u, dtype=torch.float64))) for u in uniforms]
        assert [draw_one(law, u) for u in uniforms] == wanted


def test_draws_follow_the_law():
    law = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    grid = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    counts = torch.bincount(draw(law.expand(1000, -1), grid), minlength=4)
    assert counts.tolist() == [100, 0, 600, 300]
