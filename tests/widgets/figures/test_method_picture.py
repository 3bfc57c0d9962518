"""Each method's own picture, from real short runs: its numbers are those of the trace."""

from __future__ import annotations

from functools import cache

import pytest

from widgets.figures import method_picture
from widgets.figures.place import At
from widgets.labs.decode.recorded import recorded_trace
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.core.trace import Trace
from workbench.engine.run import RunSettings, generate
from workbench.models.load import load
from workbench.zoo.held_out import prompts


@cache
def zoo():
    return load("zoo:target", device="cpu"), load("zoo:draft", device="cpu")


def traced(drafter="draft_model", tokens=32, policy="fixed", schedule="sequential", **knobs):
    target, draft = zoo()
    return generate(
        RunSettings(
            target,
            prompts()[1].text,
            make_method("drafter", drafter, **knobs),
            "exact_match",
            policy,
            Sampling(0.0),
            tokens,
            draft_model=draft,
            schedule=schedule,
        )
    )


def drawn(trace: Trace, place: int = 2):
    picture = method_picture.info(trace, At(place))
    assert picture.kind
    assert method_picture.rows(picture)
    light, dark = (method_picture.figure(picture, mode) for mode in ("light", "dark"))
    assert light["layout"]["paper_bgcolor" if "paper_bgcolor" in light["layout"] else "template"]
    assert light != dark, "the picture has no dark twin"
    assert picture.title and light["layout"]["meta"] == {"figure": "method_picture"}
    return picture, picture.traces


def test_nothing_reported_no_picture():
    for trace in (traced("prompt_lookup", 8), recorded_trace(), recorded_trace().with_(rounds=[])):
        assert method_picture.info(trace).kind == "" and not method_picture.kind_of(trace)


def test_kangaroos_confidence_stands_against_its_threshold():
    trace = traced("kangaroo")
    picture, traces = drawn(trace)
    wanted = [value for done in trace.rounds for value in done.report["confidence"]]
    assert picture.kind == "confidence"
    assert sorted(y for t in traces for y in t["y"]) == pytest.approx(sorted(wanted))
    kept = next(t for t in traces if t["name"] == "accepted")
    assert len(kept["y"]) == sum(done.accepted for done in trace.rounds)
    level = [s["y0"] for s in picture.layout["shapes"] if s.get("xref") == "paper"]
    assert level == [make_method("drafter", "kangaroo").eta]


def test_specdec_pps_staircase_rises_to_its_threshold():
    trace = traced(policy="specdec_pp")
    picture, traces = drawn(trace)
    assert picture.kind == "survival"
    here = next(t for t in traces if t["customdata"][0] == [2])
    assert here["y"] == pytest.approx([1 - x for x in trace.rounds[2].report["survival"]])
    assert all(a <= b + 1e-9 for a, b in zip(here["y"], here["y"][1:], strict=False))
    assert here["line"]["width"] > 1


def test_pearls_lanes_show_both_sides_and_what_was_wasted():
    pearl = make_method("schedule", "pearl", clock="simulated")
    trace = traced(schedule=pearl)
    picture, traces = drawn(trace)
    lanes = [lane for done in trace.rounds for lane in done.lanes]
    assert picture.kind == "lanes" and "simulated clock" in picture.title
    assert sum(len(t["x"]) for t in traces) == len(lanes)
    wasted = next(t for t in traces if t["name"] == "wasted")
    assert sum(wasted["x"]) == pytest.approx(
        sum(lane.end_ms - lane.start_ms for lane in lanes if lane.fate == "wasted")
    )


def test_the_timeline_frames_the_selected_round_and_ends_with_the_run():
    pearl = make_method("schedule", "pearl", clock="simulated")
    trace = traced(schedule=pearl)
    last = len(trace.rounds) - 1
    picture, traces = drawn(trace, last)
    frame = picture.layout["shapes"][0]
    assert frame["x0"] == min(lane.start_ms for lane in trace.rounds[last].lanes)
    left, right = picture.layout["xaxis"]["range"]
    ends = max(lane.end_ms for done in trace.rounds for lane in done.lanes)
    assert left < frame["x0"] and right <= ends + 1e-6, "the window runs past the end of the run"
    assert all(text.startswith("round ") and "round 0" not in text for text in traces[0]["text"])


def test_swifts_search_is_a_grid_of_sub_layers():
    trace = traced("swift", 80, window=8, every=1)
    picture, traces = drawn(trace)
    steps = [done.report for done in trace.rounds if "skip_attention" in done.report]
    assert picture.kind == "skip_attention" and len(steps) > 2
    grid, line = traces
    assert line["y"] == [told["matchness"] for told in steps]
    names = [row[0] for row in grid["text"]]
    for step, told in enumerate(steps):
        skipped = {names[row] for row in range(len(names)) if grid["z"][row][step] >= 2}
        wanted = {f"attention {n}" for n in told["skip_attention"]}
        assert skipped == wanted | {f"mlp {n}" for n in told["skip_mlp"]}


def test_onlines_acceptance_and_its_training_steps():
    trace = traced("online", 48, every=4)
    picture, traces = drawn(trace)
    steps = [n + 1 for n, d in enumerate(trace.rounds) if d.report["online"]["loss"]]
    assert picture.kind == "online" and steps
    assert traces[2]["x"] == steps and f"{len(steps)} training step" in picture.title
    assert traces[0]["y"][0] == pytest.approx(
        trace.rounds[0].accepted / min(trace.rounds[0].accepted + 1, max(trace.rounds[0].depth))
    )


def test_the_recycled_matrix_is_that_of_the_selected_round():
    trace = traced("token_recycling")
    picture, traces = drawn(trace, 3)
    assert picture.kind == "recycled"
    newest = trace.rounds[3].report["recycled"][-1]
    cells = traces[0]["text"][-1]
    shown = trace.piece(newest[1][0])
    assert not shown.startswith("<") or shown in "<", "a successor without its text"
    assert len(cells) == 5 and traces[0]["z"][-1][0] == 2
    early = drawn(trace, 0)[1][0]["text"]
    assert early != traces[0]["text"]


@pytest.mark.parametrize("drafter", ["fuse", "rasd"])
def test_fused_trees_count_their_origins(drafter):
    trace = traced(drafter)
    picture, (kept, wasted) = drawn(trace)
    assert picture.kind == "origin"
    assert sum(kept["x"]) == sum(done.accepted for done in trace.rounds)
    assert sum(kept["x"]) + sum(wasted["x"]) == sum(len(done.tokens) for done in trace.rounds)


def test_rest_and_aded_show_what_they_found():
    rest = traced("rest", 24)
    picture, (spans, _) = drawn(rest)
    assert picture.kind == "hits" and spans["y"] == [
        d.report["span"] for d in rest.rounds if d.report
    ]
    aded = traced("aded", 24)
    place = next(n for n, d in enumerate(aded.rounds) if d.tokens)
    picture, (bars,) = drawn(aded, place)
    assert picture.kind == "visits"
    assert bars["y"] == aded.rounds[place].report["visits"][: len(aded.rounds[place].tokens)]
