"""A trace survives the disk, refuses what is not one, and counts acceptance as it says."""

import json

import numpy as np
import pytest

from workbench.core.errors import TraceError
from workbench.core.trace import Forwards, Limits, Method, Ms, Round, Trace


def a_round(**changes) -> Round:
    """Root, two children (0, 1), a child of node 1 (2); node 1 accepted, then node 2 refused."""
    fields = dict(
        index=0,
        start=4,
        root=9,
        tokens=[1, 2, 3],
        parent=[-1, -1, 1],
        drawn="chosen",
        accept=[0.2, 0.5, 0.4],
        stop=[0.3, 0.2, 0.3, 0.2],
        uniform=0.6,
        path=[1],
        bonus=7,
        emitted=[2, 7],
        budget=Limits(2, 3, 2),
        ms=Ms(1, 2, 3, 4),
        forwards=Forwards(1, 0),
        p_node=[0.2, 0.5, 0.4],
    )
    return Round(**{**fields, **changes})


def a_trace(*rounds: Round) -> Trace:
    return Trace(
        model="m",
        device="cpu",
        dtype="float32",
        drafter=Method("a", {"k": 3}),
        verifier=Method("b"),
        policy=Method("c"),
        sampling={"temperature": 0.0},
        prompt="x",
        prompt_tokens=[1],
        rounds=list(rounds),
        pieces={1: "a", 2: "b", 7: "c"},
    )


def test_it_survives_the_disk(tmp_path):
    trace = a_trace(a_round(), a_round(index=1))
    assert Trace.load(trace.save(tmp_path / "t.json")) == trace
    assert not list(tmp_path.glob("*.partial"))


def test_fates_by_hand():
    done = a_round()
    assert done.fates == ["accepted", "corrected"]
    assert done.node_fates == ["rejected", "accepted", "rejected"]
    assert a_round(path=[1, 2], emitted=[2, 3, 7]).end_fate == "bonus"
    assert a_round(path=[0], emitted=[1, 7]).node_fates == ["accepted", "untested", "untested"]


def test_four_meanings_of_acceptance_by_hand():
    summary = a_trace(a_round(), a_round(index=1, path=[], emitted=[7])).summary
    assert summary["mean_accepted"] == 0.5
    assert summary["mean_emitted"] == 1.5
    assert summary["acceptance_ratio"] == 1 / 4  # one kept of two levels, twice
    assert summary["node_ratio"] == 1 / 6
    assert summary["tokens_per_s"] == pytest.approx(3 / 20e-3)


def test_expected_tokens_are_the_sum_of_reach():
    # reach: root 1, node 0 0.2, node 1 0.3 + 0.2, node 2 0.2
    assert a_round().expected_emitted == pytest.approx(1 + 0.2 + 0.5 + 0.2)


def test_a_damaged_file_fails_clearly_or_still_makes_sense():
    whole = a_trace(a_round()).to_json()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        if rng.random() < 0.5:
            data = data[: int(rng.integers(len(data)))]
        else:
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        try:
            Trace.from_json(bytes(data))
        except TraceError as error:
            refused += 1
            assert "not a trace" in str(error)
    assert refused > 200


@pytest.mark.parametrize(
    "changes",
    [
        {"parent": [-1, -1, 2]},
        {"stop": [1.0]},
        {"path": [2]},
        {"path": [5]},
        {"accept": []},
        {"q_node": [0.1]},
        {"p_bits": [0.1]},
        {"q_bits": [0.1]},
    ],
)
def test_contradictory_rows_are_refused(changes):
    with pytest.raises(ValueError, match="round 0"):
        a_round(**changes)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": []}', "null", "\xff"])
def test_foreign_files_are_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(TraceError, match=r"x\.json"):
        Trace.load(tmp_path / "x.json")
    with pytest.raises(TraceError, match="cannot be read"):
        Trace.load(tmp_path / "missing.json")


def test_another_schema_is_refused():
    data = a_trace(a_round()).to_json().replace(b'"schema":1', b'"schema":99')
    with pytest.raises(TraceError, match="99"):
        Trace.from_json(data)


def test_what_crossed_is_summed_over_the_rounds_that_tell_it():
    told = {"transfer_ms": 0.5, "transfer_bytes": 40}
    trace = a_trace(a_round(report=told), a_round(index=1), a_round(index=2, report=told))
    assert trace.transfer == (1.0, 80)
    assert [r.transfer for r in trace.rounds] == [(0.5, 40), None, (0.5, 40)]
    assert [row["transfer_bytes"] for row in trace.to_rows()] == [40, 0, 40]
    assert a_trace(a_round()).transfer is None
    assert a_trace().transfer is None


@pytest.mark.parametrize(
    "told",
    [{"transfer_ms": "long", "transfer_bytes": 40}, {"transfer_ms": 1.0}, {"transfer_bytes": 4}],
)
def test_a_file_that_tells_it_otherwise_tells_nothing(told):
    assert Trace.from_json(a_trace(a_round(report=told)).to_json()).transfer is None


def test_a_trace_of_before_drafts_were_placed_opens():
    fields = json.loads(a_trace(a_round()).to_json())
    del fields["draft_device"]
    assert Trace.from_json(json.dumps(fields)).draft_device == ""


def test_an_unknown_piece_shows_its_id():
    assert a_trace(a_round(emitted=[2, 55])).text == "b<55>"
