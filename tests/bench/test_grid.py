"""Grids: cells with stable ids, knobs where they apply, what cannot run with its reason."""

from __future__ import annotations

import pytest

from workbench.bench import measurement
from workbench.bench.datasets import BenchPrompt, PromptSet
from workbench.bench.grid import Grid, Setting, cell_from_json
from workbench.core.errors import BadInput, BadKnob, UnknownMethod
from workbench.core.sampling import Sampling
from workbench.policies.fixed import Fixed

PROMPTS = PromptSet("made", (BenchPrompt("a", "x", "def f():"), BenchPrompt("b", "y", "import")))


def grid(**changes) -> Grid:
    return Grid(**{"prompts": PROMPTS, "targets": ("zoo:draft",), **changes})


def labels(made: Grid) -> list[str]:
    return [cell.label for cell in made.expanded()[0]]


def test_plain_decoding_is_always_in_and_once_a_target_and_sampling():
    made = grid(
        targets=("zoo:draft", "zoo:target"),
        drafters=("none", "token_recycling"),
        verifiers=("exact_match", "typical"),
        samplings=(Sampling(), Sampling(0.8, seed=9)),
    )
    cells, refused = made.expanded()
    plain = [cell.group for cell in cells if cell.plain]
    assert len(plain) == len(set(plain)) == 4 and not refused
    assert len(cells) == 4 + 2 * 2 * 2
    assert cells[0].plain


def test_an_id_is_the_content_whatever_the_order():
    one = grid(drafters=("token_recycling", "prompt_lookup"))
    other = grid(drafters=("prompt_lookup", "token_recycling"), samplings=(Sampling(seed=5),))
    assert {c.id for c in one.expanded()[0]} == {c.id for c in other.expanded()[0]}
    ids = [c.id for c in grid(knobs=(("policy.depth", (2, 3)),)).expanded()[0]]
    assert len(set(ids)) == 3
    # Written down, so that a change of what an id is made from is noticed: old sweeps end with it.
    assert one.expanded()[0][0].id == "61e9ea8e353e"


def test_where_the_draft_stands_is_a_cell_of_its_own():
    drafters, places = ("draft_model", "token_recycling"), ("cpu", "cuda:0")
    open_, placed = grid(drafters=drafters), grid(drafters=drafters, draft_devices=places)
    cells = placed.expanded()[0]
    assert [cell.draft_device for cell in cells] == ["", "cpu", "cuda:0", ""]
    assert cells[1].label == "draft_model of zoo:draft on cpu, exact_match, fixed"
    left = {cell.id: cell for cell in open_.expanded()[0]}
    assert {cell.id for cell in cells} - left.keys() == {cells[1].id, cells[2].id}
    assert all("draft_device" not in cell.to_json() for cell in left.values()), "ids of before"
    again = cell_from_json(cells[1].to_json())
    assert (again.id, again.draft_device) == (cells[1].id, "cpu")
    assert cell_from_json(open_.expanded()[0][1].to_json()).draft_device == ""


def test_a_draft_is_loaded_where_its_cell_says(monkeypatch):
    asked = []
    monkeypatch.setattr(measurement, "model_of", lambda *named: asked.append(named))
    monkeypatch.setattr(measurement, "RunSettings", lambda *given, **more: None)
    cells = grid(drafters=("draft_model",), draft_devices=("cpu", "")).expanded()[0]
    for cell in cells:
        measurement.settings_of(cell, Setting(device="cuda:0"), "x", 0, 0)
    target, draft = ("zoo:draft", "cuda:0", None), "zoo:draft"
    assert asked == [target, target, (draft, "cpu", None), target, (draft, "cuda:0", None)]


def test_knobs_apply_to_the_methods_that_have_them():
    made = grid(
        drafters=("token_recycling", "prompt_lookup"),
        policies=(Fixed(depth=2), "fixed"),
        knobs=(("token_recycling.k", (2, 4)),),
    )
    assert labels(made) == [
        "plain",
        "token_recycling(k=2), exact_match, fixed(depth=2)",
        "token_recycling(k=2), exact_match, fixed",
        "token_recycling(k=4), exact_match, fixed(depth=2)",
        "token_recycling(k=4), exact_match, fixed",
        "prompt_lookup, exact_match, fixed(depth=2)",
        "prompt_lookup, exact_match, fixed",
    ]
    by_family = grid(policies=("fixed", "confidence"), knobs=(("policy.depth", (3,)),))
    assert all("depth=3" in label for label in labels(by_family)[1:])


def test_a_value_that_only_one_method_takes_is_recorded_for_the_other():
    made = grid(policies=("heuristic", "specdec_pp"), knobs=(("policy.most", (8, 50)),))
    refused = made.expanded()[1]
    assert [r.label for r in refused] == ["specdec_pp, {'most': 50}"]
    assert "must lie in [1, 32]" in refused[0].reason


def test_what_needs_a_draft_and_has_none_is_recorded():
    made = grid(drafters=("draft_model", "token_recycling"), drafts=())
    cells, refused = made.expanded()
    assert [c.drafter.name for c in cells] == ["none", "token_recycling"]
    assert refused[0].label == "draft_model, exact_match, fixed (zoo:draft, temperature 0)"
    assert "name one with drafts (--draft)" in refused[0].reason
    assert [c.draft for c in grid(drafters=("draft_model",)).expanded()[0]] == ["", "zoo:draft"]
    with_head = grid(policies=("specdec_pp",)).expanded()[0][1]
    assert with_head.draft == "zoo:draft", "the policy needs one"


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"drafters": ("token_recyling",)}, UnknownMethod, "Did you mean 'token_recycling'"),
        ({"drafters": ()}, BadInput, "drafters is empty"),
        ({"repeats": 0}, BadInput, "repeats=0: must be 1 or more"),
        ({"knobs": (("policy.dept", (2,)),)}, BadKnob, "Did you mean 'policy.depth'"),
        ({"knobs": (("policy.depth", ()),)}, BadKnob, "has no value"),
        ({"knobs": (("policy.depth", (0,)),)}, BadKnob, r"depth=0: must lie in \[1, 64\]"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(changes, error, said):
    with pytest.raises(error, match=said):
        grid(**changes)
    with pytest.raises(BadInput, match="new_tokens=0"):
        Setting(0)
