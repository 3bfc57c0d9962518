"""SWIFT where attention and MLP cannot be left out apart: its search keeps to whole layers."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.core.errors import ModelError
from workbench.core.sampling import Sampling
from workbench.drafters.swift import Swift
from workbench.engine.run import Run, RunSettings, generate
from workbench.testing.drafter_runs import Drive

PROMPT = "def add(a, b):\n    return a + b\n\ndef add(a, b):\n    ret"


@pytest.fixture(scope="module")
def olmoe(loaded):
    """Six layers, walked: four of them may be left out."""
    model = loaded("olmoe", num_hidden_layers=6)
    assert model.spans and model.mode == "walk"
    return model


def traced(model, drafter, tokens=40):
    return generate(RunSettings(model, PROMPT, drafter, max_new_tokens=tokens))


@pytest.mark.parametrize("ratio", [0.4, 0.6])  # of 8 sub-layers: 3, which is no whole layer, and 4
def test_the_search_goes_through_and_splits_no_layer(olmoe, ratio):
    trace = traced(olmoe, Swift(ratio=ratio, window=4, bayes_every=3))
    told = [r.report for r in trace.rounds if "best" in r.report]
    assert {report["source"] for report in told} == {"first", "random", "bayesian"}
    for report in told:
        for name in ("skip", "tried"):
            assert report[f"{name}_attention"] == report[f"{name}_mlp"]
            assert len(report[f"{name}_mlp"]) == int(8 * ratio) // 2
            assert set(report[f"{name}_mlp"]) <= {1, 2, 3, 4}
    assert len({tuple(report["tried_mlp"]) for report in told}) > 2, "it does search"
    assert trace.text == traced(olmoe, "none").text


def test_every_set_of_whole_layers_is_proposed(olmoe):
    drafter = Swift(ratio=0.5)
    drive = Drive(drafter, olmoe, None, Sampling(0.0), olmoe.encode(PROMPT))
    state = drafter.init(drive.ctx)
    assert state.skipped.tolist() == [1, 0, 1, 0] * 2, "layers 1 and 3 first"
    state.points, state.scores = [state.skipped], [0.5]
    found = {tuple(drafter._proposal(drive.ctx, state)[0]) for _ in range(80)}
    assert len(found) == 6 and all(one[:4] == one[4:] for one in found)  # 2 of 4 layers


def test_where_they_can_be_left_out_apart_they_still_are(loaded):
    model = loaded("qwen3_moe", num_hidden_layers=6)
    assert model.mode == "fused"
    drafter = Swift(ratio=0.4)
    drive = Drive(drafter, model, None, Sampling(0.0), model.encode(PROMPT))
    state = drafter.init(drive.ctx)
    assert int(state.skipped.sum()) == 3
    state.points, state.scores = [state.skipped], [0.5]
    found = np.stack([drafter._proposal(drive.ctx, state)[0] for _ in range(20)])
    assert (found[:, :4] != found[:, 4:]).any()


def test_a_family_whose_layers_cannot_be_left_out_is_refused_before_a_token(loaded):
    run = Run(RunSettings(loaded("gptj"), PROMPT, Swift()))
    with pytest.raises(ModelError, match="layers cannot be skipped"):
        next(run.rounds())
