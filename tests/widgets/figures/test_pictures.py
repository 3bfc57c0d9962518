"""What each picture says, checked against traces small enough to know the answer."""

from __future__ import annotations

import itertools

import pytest
from traces import CHAIN, grow, make_trace

from widgets import theme
from widgets.figures import (
    acceptance_map,
    accepted_length,
    draft_tree,
    node_law,
    speed,
    time_split,
    token_stream,
)
from widgets.figures.place import At
from widgets.figures.tidy import tidy
from widgets.figures.verdict import extra_costs, verdict_sentence
from workbench.core.trace import Baseline, Forwards, Limits, Method, Ms, Round, Top, Trace
from workbench.engine import replay

PIECES = {0: "def", 1: " f", 2: "(", 3: ")", 4: ":\n", 5: " g"}


def hand_made(baseline: Baseline | None = None, ms: Ms | None = None, rounds: int = 1) -> Trace:
    """One round: root `def`; f kept, g refused before it; ( under f kept; ) under g untested."""
    one = Round(
        index=0, start=1, root=0, tokens=[5, 1, 2, 3], parent=[-1, -1, 1, 0],
        drawn="with_replacement", accept=[0.25, 0.5, 1.0, 0.75], stop=[0.25, 0, 0, 0.75, 0],
        uniform=0.4, path=[1, 2], bonus=3, emitted=[1, 2, 3], budget=Limits(2, 4, 2),
        ms=ms or Ms(1.0, 8.0, 0.5, 0.5), forwards=Forwards(1, 2), forward_ms=9.0,
        p_node=[0.2, 0.6, 0.9, 0.5], q_node=[0.8, 0.2, 0.9, 0.5],
        p_top=[Top([1, 5], [0.6, 0.2]), Top([3], [0.5]), Top([2], [0.9]),
               Top([3, 4], [0.7, 0.3]), Top([4], [1.0])],
        q_top=[Top([5, 1], [0.8, 0.2]), Top([5, 1], [0.8, 0.2]), Top([2], [0.9]), Top([3], [0.5])],
    )  # fmt: skip
    return Trace(
        model="toy", device="cpu", dtype="float32", drafter=Method("d"), verifier=Method("v"),
        policy=Method("p"), sampling={"temperature": 1.0}, prompt="def", prompt_tokens=[0],
        rounds=[one] * rounds, pieces=PIECES, baseline=baseline,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("nodes", [0, 1, 2, 7, 31, 64])
def test_no_two_nodes_of_a_level_touch_and_parents_stand_between_their_children(nodes, seed):
    parent = grow(nodes, seed)
    lanes, depth = tidy(parent), [0]
    for above in parent:
        depth.append(depth[above + 1] + 1)
    assert min(lanes) == 0 and len(lanes) == nodes + 1
    for level in set(depth):
        here = sorted(lane for lane, d in zip(lanes, depth, strict=True) if d == level)
        assert all(b - a > 1 - 1e-9 for a, b in itertools.pairwise(here))
    for row in range(nodes + 1):
        below = [lanes[i + 1] for i, above in enumerate(parent) if above == row - 1]
        assert below == sorted(below), "siblings out of draw order"
        if below:
            assert lanes[row] == pytest.approx((below[0] + below[-1]) / 2)


def test_packing_uses_fewer_lanes_than_there_are_leaves():
    parent = (-1, -1, 0, 0, 0, 4, 4, 4)  # the second child of the root fits beside the deep part
    leaves = sum(node not in parent for node in range(len(parent)))
    assert max(tidy(parent)) + 1 < leaves


def test_tree_tells_fates_labels_and_how_the_round_ended():
    tree = draft_tree.info(hand_made(), At(0, 2))
    assert [node.fate for node in tree.nodes] == ["rejected", "accepted", "accepted", "untested"]
    assert [node.label for node in tree.nodes] == ["·g", "·f", "(", ")"]
    assert [node.x for node in tree.nodes] == [1, 1, 2, 2]
    assert tree.selected == 2 and tree.path == (1, 2)
    assert draft_tree.sentence(tree) == "kept 2 of 2 levels, then “)” (bonus)"
    data = draft_tree.tree_data(tree)
    assert data["round_count"] == 1 and data["nodes"][0]["q"] == 0.8
    shapes = draft_tree.figure(tree)["layout"]["shapes"]
    edges = [shape["line"] for shape in shapes if shape["type"] == "path"]
    assert [edge["dash"] for edge in edges] == ["solid", "5px,3px", "solid", "solid"]
    assert edges[-1]["color"] == theme.LIGHT.accepted and edges[-1]["width"] > edges[0]["width"]
    struck = [shape["y0"] for shape in shapes if shape["type"] == "line"]
    assert struck == [tree.nodes[0].y]
    framed = [s["x0"] for s in shapes if s["line"]["color"] == theme.LIGHT.select]
    assert framed == [tree.nodes[2].x]


def test_tree_without_nodes_and_with_a_cut_end():
    plain = draft_tree.info(make_trace(1, parent=()), At(0, 0))
    assert plain.nodes == () and "nothing drafted" in draft_tree.sentence(plain)


def test_stream_spells_the_text_and_only_grows():
    trace = make_trace(40, drawn=True)
    stream = token_stream.info(trace)
    assert "".join(token.text for token in stream.tokens) == trace.text
    fates = [fate for round_ in trace.rounds for fate in round_.fates]
    assert [token.fate for token in stream.tokens] == fates
    long = token_stream.stream_data(trace)
    short = token_stream.stream_data(trace.with_(rounds=trace.rounds[:15]))
    for column in ("words", "tokens", "round", "node", "index", "p", "q", "alternatives"):
        assert long[column][: len(short[column])] == short[column]
    assert "".join(long["words"][i] for i in long["tokens"]) == trace.text
    assert len(long["fates"]) == len(long["tokens"])


def test_stream_knows_where_each_token_came_from():
    f, bracket, extra = token_stream.info(hand_made()).tokens
    assert (f.node, f.p, f.q, f.fate, f.depth) == (1, 0.6, 0.2, "accepted", 1)
    assert (bracket.node, bracket.p) == (2, 0.9)
    assert (extra.node, extra.p, extra.q, extra.fate) == (2, 0.7, None, "bonus")
    assert extra.alternatives == ((":\n", 0.3),)
    assert f.alternatives == ((" g", 0.2),)


def test_map_gives_each_level_its_chance():
    levels = acceptance_map.info(hand_made(), At(0, 0)).levels
    assert [(level.fate, level.accept) for level in levels] == [
        ("accepted", 0.75), ("accepted", 1.0),
    ]  # fmt: skip
    broken = acceptance_map.info(make_trace(30, parent=CHAIN, seed=2))
    fates = {level.fate for level in broken.levels}
    assert fates == {"accepted", "rejected", "untested"}
    for level in broken.levels:
        assert (level.accept is None) == (level.fate == "untested")
        strength = acceptance_map.strength(level)
        assert (strength > 0) == (level.fate == "accepted") and abs(strength) <= 1


def test_map_frames_the_selected_round():
    trace = make_trace(9)
    shapes = acceptance_map.figure(acceptance_map.info(trace, At(4, 0)))["layout"]["shapes"]
    assert shapes[0]["x0"] < 5 < shapes[0]["x1"]
    assert not acceptance_map.figure(acceptance_map.info(trace))["layout"]["shapes"]


def test_lengths_count_every_round_once():
    trace = make_trace(54)
    lengths = accepted_length.info(trace, At(7, 0))
    assert sum(lengths.counts) == 54
    assert lengths.mean == pytest.approx(trace.summary["mean_accepted"])
    assert lengths.chosen == trace.rounds[7].accepted


def test_time_adds_up():
    trace = make_trace(54, drawn=True)
    split = time_split.info(trace)
    assert split.total_ms == pytest.approx(trace.total_ms / 54)
    assert sum(row["share"] for row in time_split.rows(split)) == pytest.approx(1)


def test_law_of_a_known_node():
    law = node_law.info(hand_made(), At(0, 0))
    shown = {bar.label: bar for bar in law.bars}
    assert (shown["·g"].p, shown["·g"].q, shown["·g"].is_node) == (0.2, 0.8, True)
    assert shown["·f"].overlap == 0.2 and shown["·f"].residual == pytest.approx(0.4)
    assert shown["other"].p == pytest.approx(0.2) and shown["other"].q == pytest.approx(0)
    assert law.overlap == pytest.approx(0.4)


def test_overlap_agrees_with_replay():
    trace = make_trace(12, drawn=True, parent=CHAIN)
    for position, round_ in enumerate(trace.rounds):
        for node in range(len(round_.tokens)):
            law = node_law.info(trace, At(position, node))
            assert law.overlap == pytest.approx(replay.overlap(round_, node), abs=1e-6)
            assert sum(bar.overlap for bar in law.bars) == pytest.approx(law.overlap, abs=1e-6)
            assert sum(bar.p or 0 for bar in law.bars) == pytest.approx(1, abs=1e-6)


def test_law_of_a_chosen_token_and_of_the_root():
    chosen = node_law.info(make_trace(1), At(0, 0))
    assert chosen.chosen and [bar.q for bar in chosen.bars if bar.is_node] == [1.0]
    root = node_law.info(make_trace(1), At(0, -1))
    assert root.overlap is None and all(bar.q is None for bar in root.bars)


def base(ms: float, spread: float = 0.02) -> Baseline:
    return Baseline(96, ms, ms * (1 - spread), ms * (1 + spread))


def test_speed_and_break_even():
    found = speed.info(hand_made(base(6.0)))  # 10 ms a round, 3 tokens
    assert found.tokens_per_s == pytest.approx(300)
    assert found.plain_tokens_per_s == pytest.approx(1000 / 6)
    assert found.ratio == pytest.approx(1.8)
    assert found.break_even_emitted == pytest.approx(10 / 6)
    assert found.ratio / (found.mean_emitted / found.break_even_emitted) == pytest.approx(1)
    assert found.ratio_low < found.ratio < found.ratio_high
    none = speed.info(hand_made())
    assert none.ratio is None and "not measured" in speed.break_even(none)


@pytest.mark.parametrize(
    ("trace", "says"),
    [
        (make_trace(0), "Nothing has been generated"),
        (make_trace(2, plain_ms=None), "was not measured"),
        (make_trace(2, parent=()), "Nothing was drafted"),
        (hand_made(base(6.0)), "Speculation pays: 1.80×"),
        (hand_made(base(10 / 3, 0.1)), "Too close to call"),
        (hand_made(base(4.0), Ms(20.0, 4.5, 0.2, 0.2)), "largest extra cost is drafting: 20.0 ms"),
        (
            hand_made(base(4.0), Ms(1.0, 24.0, 0.2, 0.2)),
            "cost is checking 4 nodes at once: 20.0 ms",
        ),
        (hand_made(base(4.0), Ms(1.0, 5.0, 9.0, 9.0)), "largest extra cost is bookkeeping"),
    ],
)
def test_the_verdict_names_the_cost(trace, says):
    assert says in verdict_sentence(trace)


def test_the_verdict_blames_the_draft_where_nothing_is_kept():
    trace = make_trace(30, plain_ms=9.0)
    lost = [
        type(r)(**{**{f: getattr(r, f) for f in r.__struct_fields__},
                   "path": [], "emitted": r.emitted[:1]})
        for r in trace.rounds
    ]  # fmt: skip
    assert "The draft is to blame: only 0.00" in verdict_sentence(trace.with_(rounds=lost))


def test_the_extra_costs_add_up_to_the_extra_time():
    trace = hand_made(base(4.0), rounds=3)
    assert sum(cost.ms for cost in extra_costs(trace)) == pytest.approx(10 - 4)
