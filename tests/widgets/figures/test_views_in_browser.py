"""The three ESM views driven as a person would: mouse, keys, a narrow screen, a dark host."""

from __future__ import annotations

import pytest
from traces import grow, make_trace

from widgets import theme
from widgets.figures import acceptance_map, draft_tree, token_stream
from widgets.figures.place import At
from widgets.views import esm
from widgets.views.packed import packed

pytestmark = pytest.mark.browser
TRACE = make_trace(54, drawn=True)
ROUND_17 = At(16, -1)
GAP = (
    "() => { const s = document.querySelector('.scroll');"
    " return s.scrollHeight - s.scrollTop - s.clientHeight }"
)


def stream_state(trace=TRACE, **more):
    data = token_stream.stream_data(trace)
    return {"data": data, "selected": -1, "running": False, **more}


def tree_state(trace=TRACE, at=ROUND_17, **more):
    data = draft_tree.tree_data(draft_tree.info(trace, at))
    return {"data": data, "selected": at.node, "round_count": len(trace.rounds), **more}


# ---- token stream --------------------------------------------------------------------------------


def test_stream_names_every_fate_and_shows_new_lines(stage):
    page = stage(esm.STREAM, stream_state()).page
    tokens = token_stream.info(TRACE).tokens
    spans = page.locator("[data-i]")
    assert spans.count() == len(tokens)
    for place in (0, 3, len(tokens) - 1):
        label = spans.nth(place).get_attribute("aria-label")
        token = tokens[place]
        assert label == f"{theme.visible(token.text)}, {token.fate}, round {token.round + 1}"
    assert page.locator(".mark").first.inner_text() == "⏎"
    lines = page.evaluate(
        "() => ['accepted', 'bonus', 'corrected'].map((fate) =>"
        " getComputedStyle(document.querySelector('[data-i].' + fate)).textDecorationStyle)"
    )
    assert lines == ["solid", "dotted", "wavy"]


def test_stream_clicks_and_keys_come_out_in_order(stage):
    view = stage(esm.STREAM, stream_state())
    tokens = token_stream.info(TRACE).tokens
    for place in range(5):
        view.page.locator(f'[data-i="{place}"]').click()
    wanted = [
        {"kind": "token", "round": t.round, "node": t.node, "index": t.place} for t in tokens[:5]
    ]
    assert view.said() == wanted
    numbers = [event["seq"] for event in view.events]
    assert numbers == sorted(set(numbers)) and numbers[0] > 1.6e12
    here = tokens[4].round
    view.page.keyboard.press("]")
    view.page.keyboard.press("[")
    assert view.said()[5:] == [
        {"kind": "round", "round": here + 1},
        {"kind": "round", "round": here},
    ]


def test_stream_focus_roves_and_enter_chooses(stage):
    view = stage(esm.STREAM, stream_state())
    view.page.keyboard.press("Tab")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Enter"):
        view.page.keyboard.press(key)
    assert view.page.evaluate("() => document.activeElement.dataset.i") == "1"
    assert view.page.locator('[data-i][tabindex="0"]').count() == 1
    token = token_stream.info(TRACE).tokens[1]
    assert view.said()[-1]["index"] == token.place
    assert view.page.locator(".tip").is_visible() and "round" in view.page.inner_text(".tip")


def test_stream_outlines_the_selected_round_and_brings_it_into_sight(stage):
    view = stage(esm.STREAM, stream_state(selected=50), height=200)
    view.drawn()
    places = [i for i, t in enumerate(token_stream.info(TRACE).tokens) if t.round == 50]
    chosen = view.page.eval_on_selector_all(
        ".chosen", "spans => spans.map((span) => Number(span.dataset.i))"
    )
    assert chosen == places
    box = view.page.locator(f'[data-i="{places[0]}"]').bounding_box()
    assert 0 < box["y"] < 200
    view.set("selected", 0)
    assert view.page.locator('[data-i="0"][aria-selected="true"]').count() == 1


def test_stream_appends_without_redrawing_and_follows_unless_scrolled_up(stage):
    parts = [TRACE.with_(rounds=TRACE.rounds[:n]) for n in (30, 40, 50)]
    view = stage(esm.STREAM, stream_state(parts[0], running=True), height=200)
    page = view.page
    page.evaluate("() => { document.querySelector('[data-i]').dataset.same = 'yes' }")
    assert page.evaluate(GAP) < 2
    view.set("data", token_stream.stream_data(parts[1]))
    assert page.evaluate(GAP) < 2, "does not follow"
    page.evaluate("() => { document.querySelector('.scroll').scrollTop = 0 }")
    view.drawn()
    view.set("data", token_stream.stream_data(parts[2]))
    assert page.evaluate("() => document.querySelector('.scroll').scrollTop") == 0
    assert page.locator('[data-i="0"]').get_attribute("data-same") == "yes", "was redrawn"
    assert page.locator("[data-i]").count() == len(parts[2].new_tokens)
    view.set("data", token_stream.stream_data(make_trace(2, seed=9)))
    assert page.locator("[data-i]").count() == len(make_trace(2, seed=9).new_tokens)


def test_stream_shows_its_tail_and_leaves_out_one_of_other_data(stage):
    short = TRACE.with_(rounds=TRACE.rounds[:30])
    columns = token_stream.StreamColumns(short)
    words, count = columns.word_count, len(columns)
    view = stage(esm.STREAM, {**stream_state(short), "tail": {}})
    page = view.page
    view.set("data", {"number": 2, **columns.whole()})
    page.evaluate("() => { document.querySelector('[data-i]').dataset.same = 'yes' }")
    columns.extend(TRACE)
    part = columns.data(slice(count, None), slice(words, None))
    view.set("tail", {"of": 1, **part})
    assert page.locator("[data-i]").count() == count, "a tail of other data"
    view.set("tail", packed({"of": 2, **part}))
    tokens = token_stream.info(TRACE).tokens
    assert page.locator("[data-i]").count() == len(tokens) > count
    assert page.locator('[data-i="0"]').get_attribute("data-same") == "yes", "was redrawn"
    last = page.locator(f'[data-i="{len(tokens) - 1}"]')
    assert last.get_attribute("aria-label").startswith(theme.visible(tokens[-1].text))
    last.hover()
    shown = page.inner_text(".tip")
    assert f"round {tokens[-1].round + 1}" in shown
    assert all(theme.visible(text) in shown for text, _ in tokens[-1].alternatives)
    last.click()
    told = {"kind": "token", "round": tokens[-1].round, "node": tokens[-1].node}
    assert view.said()[-1] == {**told, "index": tokens[-1].place}
    view.set("data", packed({"number": 3, **columns.whole()}))
    assert page.locator("[data-i]").count() == len(tokens), "shown twice"


def test_two_thousand_tokens_stay_smooth(stage):
    trace = make_trace(600)
    assert len(trace.new_tokens) > 1800
    view = stage(esm.STREAM, stream_state(trace.with_(rounds=trace.rounds[:599])))
    data = token_stream.stream_data(trace)
    touched = view.page.evaluate(
        """async (data) => {
          const seen = [], root = document.getElementById('el');
          new MutationObserver((records) => seen.push(...records)).observe(root,
            { subtree: true, childList: true, attributes: true, characterData: true });
          model.set('data', data);
          await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
          return seen.map((one) => Math.max(one.addedNodes.length + one.removedNodes.length, 1))
            .reduce((sum, count) => sum + count, 0);
        }""",
        data,
    )
    new = len(trace.rounds[-1].emitted)
    assert 0 < touched < 20 * (new + 4), "one more round must not cost a redraw"


# ---- draft tree ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [dict, packed])
def test_tree_says_each_fate_and_click_selects(stage, pack):
    state = tree_state()
    view = stage(esm.TREE, {**state, "data": pack(state["data"])})
    tree = draft_tree.info(TRACE, At(16, -1))
    for node in tree.nodes:
        label = view.page.locator(f'[data-node="{node.node}"]').get_attribute("aria-label")
        assert label.startswith(f"{node.label}, {node.fate}, depth {node.x:.0f}")
    view.page.locator('[data-node="2"]').click()
    assert view.said() == [{"kind": "node", "round": 16, "node": 2}]
    assert view.page.locator('[aria-selected="true"]').get_attribute("data-node") == "2"


def test_arrow_keys_walk_the_tree(stage):
    view = stage(esm.TREE, tree_state())
    parent = TRACE.rounds[16].parent
    view.page.locator('[data-node="-1"]').click()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft"):
        view.page.keyboard.press(key)
    walked = [event["node"] for event in view.said()]
    assert walked[0] == walked[-1] == -1
    assert parent[walked[1]] == -1 and parent[walked[2]] == walked[1] == walked[3]
    view.page.locator('[data-node="0"]').click()
    view.page.keyboard.press("ArrowDown")
    assert view.said()[-1]["node"] == 1
    view.page.keyboard.press("ArrowUp")
    assert view.said()[-1]["node"] == 0


def test_rounds_scrub_by_button_key_and_slider(stage):
    view = stage(esm.TREE, tree_state())
    view.page.get_by_label("Next round").click()
    view.page.get_by_label("Previous round").click()
    view.page.locator('[data-node="-1"]').focus()
    view.page.keyboard.press("]")
    view.page.locator("input[type=range]").focus()
    view.page.keyboard.press("End")
    assert [event["round"] for event in view.said()] == [17, 16, 17, 53]
    assert view.page.inner_text("output") == "round 54 of 54"
    assert view.page.get_by_label("Next round").is_disabled()


def test_a_late_answer_does_not_undo_newer_steps(stage):
    view = stage(esm.TREE, tree_state(), still=True)
    late = draft_tree.tree_data(draft_tree.info(TRACE, At(17, -1)))
    view.page.locator('[data-node="-1"]').click()
    view.page.keyboard.press("]")
    view.page.keyboard.press("]")
    view.set("data", late)  # the answer to the first step
    view.page.keyboard.press("]")
    assert [event["round"] for event in view.said()[1:]] == [17, 18, 19]
    assert view.page.inner_text("output") == "round 20 of 54"
    view.pass_ms(800)  # no further answer: what is drawn counts again
    assert view.page.inner_text("output") == "round 18 of 54"
    view.page.locator('[data-node="-1"]').click()
    view.page.keyboard.press("ArrowRight")
    first = view.said()[-1]["node"]
    view.set("selected", -1)
    view.page.keyboard.press("ArrowLeft")
    view.page.keyboard.press("ArrowRight")
    assert [event["node"] for event in view.said()[-2:]] == [-1, first]
    view.pass_ms(800)
    assert view.page.locator('[aria-selected="true"]').get_attribute("data-node") == "-1"


def test_a_late_answer_does_not_undo_newer_rounds_in_the_stream(stage):
    view = stage(esm.STREAM, stream_state(selected=3), still=True)
    view.page.locator('[data-i="0"]').click()
    for _ in range(2):
        view.page.keyboard.press("]")
    view.set("selected", 0)  # the answer to the click
    view.page.keyboard.press("]")
    assert [event["round"] for event in view.said()] == [0, 1, 2, 3]
    view.pass_ms(800)
    assert view.page.locator('[data-i="0"]').get_attribute("aria-selected") == "true"


@pytest.mark.parametrize("width", [390, 1000])
def test_tree_fits_its_box(stage, width):
    view = stage(esm.TREE, tree_state(), width=width)
    stage_box = view.page.locator(".stage").bounding_box()
    for node in view.page.locator("[data-node]").all():
        box = node.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width + 1
        assert stage_box["y"] - 1 <= box["y"]
        assert box["y"] + box["height"] <= stage_box["y"] + stage_box["height"] + 1
    assert view.page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_a_huge_tree_keeps_the_selected_node_in_sight(stage):
    trace = make_trace(3, parent=grow(64, 3))
    view = stage(esm.TREE, tree_state(trace, At(1, 63)), height=260)
    box = view.page.locator('[data-node="63"]').bounding_box()
    assert 0 <= box["y"] and box["y"] + box["height"] <= 261


def test_empty_views_say_so(stage):
    empty = make_trace(0)
    tree = stage(esm.TREE, tree_state(empty, At(0, -1)))
    assert "no round yet" in tree.page.inner_text("body")
    stream = stage(esm.STREAM, stream_state(empty))
    assert "nothing generated yet" in stream.page.inner_text("body")
    assert "has arrived" in stage(esm.PLOT, {"fig": {}}).page.inner_text("body")
    stage(esm.TREE, {"data": {}, "selected": -1, "round_count": 0})
    stage(esm.STREAM, {"data": {}, "selected": -1, "running": True})


# ---- host ----------------------------------------------------------------------------------------


def mode_of(view) -> str:
    view.page.wait_for_timeout(150)
    return view.page.locator(".dw").first.get_attribute("data-mode")


def test_mode_follows_the_host_before_the_system(stage):
    assert mode_of(stage(esm.TREE, tree_state(), dark=True)) == "dark"
    assert mode_of(stage(esm.TREE, tree_state(), dark=True, body="background:#fff")) == "light"
    assert mode_of(stage(esm.TREE, tree_state(), body="background:#111")) == "dark"
    view = stage(esm.TREE, tree_state(), body="background:#fff")
    view.page.evaluate("() => { document.body.dataset.jpThemeLight = 'false' }")
    assert mode_of(view) == "dark"
    view.set("mode", "light")
    assert mode_of(view) == "light"


@pytest.mark.parametrize("name", [esm.STREAM, esm.TREE, esm.PLOT])
def test_a_closed_view_leaves_nothing_behind(stage, name):
    figure = acceptance_map.figure(acceptance_map.info(TRACE, At(4, 0)))
    states = {esm.STREAM: stream_state(), esm.TREE: tree_state(), esm.PLOT: {"fig": figure}}
    state = {"mode": "auto", **states[name]}
    view = stage(name, state)
    assert view.page.evaluate("() => model.listeners()") > 0
    view.page.evaluate("() => window.leave()")
    assert view.page.evaluate("() => model.listeners()") == 0


def test_the_outbox_keeps_the_last_hundred(stage):
    view = stage(esm.TREE, tree_state())
    view.page.locator('[data-node="0"]').click()
    for _ in range(60):
        view.page.keyboard.press("ArrowDown")
        view.page.keyboard.press("ArrowUp")
    numbers = [event["seq"] for event in view.events]
    assert len(numbers) == 100 and numbers == sorted(set(numbers))
