"""The charts of the labs: empty, one-element and large data, both modes, clicks, words."""

from __future__ import annotations

import itertools
import json
import math
from types import ModuleType
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
from lab_infos import CASES, some_bars, some_curves, some_flow, some_grid, some_heat, some_steps

from widgets import theme
from widgets.figures import (
    chart_parts,
    curves,
    expert_flow,
    export,
    heat,
    layer_bars,
    routing_grid,
    spectrum,
    waterfall,
)
from widgets.figures.curves import Curves, Line
from widgets.views.clicks import customdata

SIZES = ("empty", "one", "large")
EVERY = [
    pytest.param(module, info, id=f"{name}-{size}")
    for name, (module, infos) in CASES.items()
    for size, info in zip(SIZES, infos, strict=True)
]


def test_every_chart_is_here():
    assert all(module.NAME == name for name, (module, _) in CASES.items())


@pytest.mark.parametrize(("module", "info"), EVERY)
def test_plotly_takes_it_and_both_modes_agree(module: ModuleType, info):
    light, dark = module.figure(info), module.figure(info, "dark")
    text = json.dumps(light, allow_nan=False)
    assert "http" not in text
    checked = go.Figure(light["data"], light["layout"])  # raises on an unknown property
    assert checked.layout.meta["figure"] == module.NAME
    assert light["config"]["toImageButtonOptions"]["filename"] == module.NAME
    assert theme.in_mode(light, "dark") == dark
    left = [colour for colour in theme.swap_table() if f'"{colour}"' in json.dumps(dark)]
    assert not left, f"light colours in the dark figure: {left}"


@pytest.mark.parametrize(("module", "info"), EVERY)
def test_rows_and_static_twin(module: ModuleType, info):
    root = ElementTree.fromstring(module.svg(info, 480))
    assert root.tag.endswith("svg") and float(root.get("width")) == 480
    rows = module.rows(info)
    assert len({tuple(row) for row in rows}) <= 1, "rows with different columns"
    assert export.to_csv(rows).count("\n") >= len(rows)


@pytest.mark.parametrize("name", CASES)
def test_an_empty_chart_says_so(name):
    module, (empty, *_) = CASES[name]
    figure = module.figure(empty)
    assert figure["data"] == [] and "yet" in figure["layout"]["annotations"][0]["text"]
    assert "yet" in module.svg(empty, 340)


def test_what_is_no_number_is_left_out():
    nan, far = math.nan, math.inf
    infos = [
        (curves, Curves("t", "x", "y", (Line("a", (0.0, 1.0, 2.0), (nan, far, 1.0)),), (nan, 1.0))),
        (spectrum, spectrum.Spectrum("t", (Line("a", (1.0, 2.0), (0.0, nan)),))),
        (layer_bars, layer_bars.LayerBars("t", "u", ("a", "b"), (nan, far), (1.0, nan))),
        (heat, heat.Heat("t", "x", "y", ("a", "b"), ("c",), ((nan, None),))),
        (waterfall, waterfall.Waterfall("t", "u", (("a", nan), ("b", 1.0)))),
        (expert_flow, expert_flow.ExpertFlow(((0, 0, 0, nan), (0, 1, 1, 1.0)), 2, (0, 1))),
    ]
    for module, info in infos:
        json.dumps(module.figure(info), allow_nan=False)
        assert "nan" not in module.svg(info, 300) and "inf" not in module.svg(info, 300)


def test_names_that_look_like_markup_stay_literal():
    bad = '<i>&"x'
    infos = [
        (curves, Curves(bad, bad, bad, (Line(bad, (1.0,), (1.0,)), Line(bad, (1.0,), (2.0,))))),
        (layer_bars, layer_bars.LayerBars(bad, bad, (bad,), (1.0,))),
        (heat, heat.Heat(bad, bad, bad, (bad,), (bad,), ((1.0,),), bad)),
        (routing_grid, some_grid(3, 1)._replace(tokens=(bad,) * 3)),
        (waterfall, waterfall.Waterfall(bad, bad, ((bad, 1.0),))),
    ]
    for module, info in infos:
        shown = module.figure(info)
        shown["layout"].pop("meta")  # plotly shows nothing of it; `fitted` wraps its words anew
        assert "<i>" not in json.dumps(shown)
        ElementTree.fromstring(module.svg(info, 300))


# ---- what a click says ---------------------------------------------------------------------------


def test_customdata_says_what_was_clicked():
    assert curves.figure(some_curves(2, 3))["data"][1]["customdata"] == [[1, 0], [1, 1], [1, 2]]
    assert layer_bars.figure(some_bars(3))["data"][0]["customdata"] == [0, 1, 2]
    cells = heat.figure(some_heat(2, 3))["data"][0]["customdata"]
    assert cells == [[[0, 0], [0, 1], [0, 2]], [[1, 0], [1, 1], [1, 2]]]
    flow = some_flow(3, 2)
    ribbons, boxes = expert_flow.figure(flow)["data"]
    assert sorted(map(tuple, ribbons["customdata"])) == sorted(pair[:3] for pair in flow.pairs)
    assert boxes["customdata"] == [[layer, expert] for layer in range(3) for expert in range(2)]
    assert waterfall.figure(some_steps(2))["data"][0]["customdata"] == [0, 1, 2]


def test_a_cell_of_the_grid_and_its_stripe_say_layer_and_token():
    figure = routing_grid.figure(some_grid(4, 3))
    for curve in (0, 1):
        for layer, token in itertools.product(range(3), range(4)):
            y = layer if curve == 0 else layer - 0.38  # the middle of the stripe
            point = {"curveNumber": curve, "x": token, "y": y, "customdata": None}
            assert customdata(figure, point) == [layer, token]


def test_a_click_keeps_the_customdata_that_came_with_it():
    figure = heat.figure(some_heat(2, 2))
    assert customdata(figure, {"curveNumber": 0, "customdata": 7, "x": 0, "y": 0}) == 7
    for point in ({}, {"curveNumber": 9}, {"curveNumber": 0, "x": 5, "y": 0}):
        assert customdata(figure, point) is None
    assert customdata({}, {"curveNumber": 0}) is None


# ---- what is said --------------------------------------------------------------------------------


def test_the_grid_tells_both_choices_with_number_and_colour():
    grid = routing_grid.RoutingGrid(
        ("a", "b"), (2,), ((9, -1),), ((1, 0),), ((0.7, 0.0),), 16, ((0, 1),)
    )
    cells, stripes = routing_grid.figure(grid)["data"]
    assert cells["z"] == [[9 % len(chart_parts.CYCLE), None]] and cells["text"] == [["9", ""]]
    assert stripes["y"][0] == -0.5 < stripes["y"][1] < stripes["y"][2] < -0.25  # its lower quarter
    assert stripes["z"][1] == [1, 0] and stripes["z"][0] == [None, None]
    assert "expert 9" in cells["hovertext"][0][0] and "layer 2" in cells["hovertext"][0][0]
    assert "then expert 1" in cells["hovertext"][0][0] and "no expert" in cells["hovertext"][0][1]
    (frame,) = routing_grid.figure(grid)["layout"]["shapes"]
    assert frame["x0"] < 1 < frame["x1"] and frame["y0"] < 0 < frame["y1"]
    assert 'text-anchor="middle" fill' in routing_grid.svg(grid, 300)


def test_ribbons_fill_their_boxes_exactly_and_never_cross_the_edge():
    flow = some_flow(4, 5)
    boxes = {(box.layer, box.expert): box for box in expert_flow.boxes(flow)}
    for layer in range(4):
        here = sorted(box for (at, _), box in boxes.items() if at == layer)
        assert here[0].low == 0 and here[-1].high == pytest.approx(1)
        assert all(b.low > a.high for a, b in itertools.pairwise(here))
    left: dict[tuple[int, int], float] = {}
    ribbons = expert_flow.ribbons(flow)
    for one, other in itertools.combinations(ribbons, 2):
        if one[:2] == other[:2]:
            assert one.leaves[1] <= other.leaves[0] + 1e-9 or other.leaves[1] <= one.leaves[0]
        if (one.layer, one.target) == (other.layer, other.target):
            assert one.enters[1] <= other.enters[0] + 1e-9 or other.enters[1] <= one.enters[0]
    for ribbon in ribbons:
        box = boxes[ribbon.layer, ribbon.source]
        assert box.low - 1e-9 <= ribbon.leaves[0] <= ribbon.leaves[1] <= box.high + 1e-9
        key = (ribbon.layer, ribbon.source)
        left[key] = left.get(key, 0.0) + ribbon.leaves[1] - ribbon.leaves[0]
    for key, thick in left.items():
        out = sum(pair[3] for pair in flow.pairs if pair[:2] == key)
        box = boxes[key]
        assert thick == pytest.approx((box.high - box.low) * out / box.share)


def test_the_thinnest_ribbons_are_left_out_and_it_is_said():
    flow = some_flow(16, 16)
    kept = expert_flow.shown(flow)
    assert len(kept) == expert_flow.MOST < len(flow.pairs)
    assert min(pair[3] for pair in kept) >= max(
        pair[3] for pair in flow.pairs if pair not in set(kept)
    )
    assert f"{len(flow.pairs) - len(kept)} thin ribbons" in json.dumps(expert_flow.figure(flow))


def test_the_waterfall_ends_where_its_steps_lead():
    bars = waterfall.steps(waterfall.Waterfall("t", "u", (("a", 0.6), ("b", -0.2), ("c", 0.1))))
    assert [bar.kind for bar in bars] == ["start", "down", "up", "total"]
    assert bars[-1].value == pytest.approx(0.5) and bars[1].end == bars[2].begin
    assert [waterfall.said(bar) for bar in bars] == ["0.6", "▼ −0.2", "▲ +0.1", "0.5"]
    figure = waterfall.figure(waterfall.Waterfall("t", "u", (("a", 0.6), ("b", -0.2))))
    assert figure["data"][0]["base"] == pytest.approx([0, 0.4, 0])
    assert figure["data"][0]["x"] == pytest.approx([0.6, 0.2, 0.4])


def test_the_present_setting_is_ringed():
    ring = curves.figure(some_curves(2, 5))["data"][-1]
    assert (ring["x"], ring["y"]) == ([0.5], [2.2]) and ring["marker"]["symbol"] == "circle-open"
    assert "<circle" in curves.svg(some_curves(2, 5))
    bars = layer_bars.figure(some_bars(4))["data"][0]["marker"]["line"]["width"]
    assert bars == [0, 0, 0, 2.5]


def test_a_zero_has_no_logarithm():
    info = spectrum.Spectrum("t", (Line("a", (1.0, 2.0, 3.0), (10.0, 0.0, 0.01)),))
    figure = spectrum.figure(info)
    assert figure["data"][0]["y"] == [10.0, None, 0.01]
    axis = figure["layout"]["yaxis"]
    assert axis["type"] == "log" and axis["ticktext"] == ["10⁻²", "0.1", "1", "10"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.004, "0"), (0.29, ".29"), (-0.051, "-.05"), (1.0, "1"), (7.14, "7.1"),
     (12.4, "12"), (2048.0, "2.05e+03"), (20480.0, "20.5 k")],
)  # fmt: skip
def test_numbers_in_cells_are_short(value, shown):
    assert heat.brief(value) == shown


# ---- in a wider place ----------------------------------------------------------------------------


def test_a_wider_place_gives_the_plot_what_heading_and_keys_leave():
    note = "a sentence of some sixty letters that has to wrap where it is narrow"
    info = some_curves(7, 5)._replace(note=note)
    narrow = curves.figure(info)
    wide = chart_parts.fitted(narrow, 640)
    assert narrow["layout"]["title"]["text"].count("<br>") == 2
    assert wide["layout"]["title"]["text"].count("<br>") == 1
    for side in ("t", "b"):
        assert wide["layout"]["margin"][side] < narrow["layout"]["margin"][side]
    assert wide["data"] is narrow["data"] and "640" not in str(narrow["layout"]["meta"])
    assert chart_parts.fitted(wide, 340) == narrow == chart_parts.fitted(narrow, 90)


def test_a_wider_place_names_every_bar():
    names = ("docstring", "repetitive", "prose", "code", "test")
    info = layer_bars.LayerBars("Speed", "x plain", names, (1.0,) * 5)
    narrow = layer_bars.figure(info)
    assert len(narrow["layout"]["xaxis"]["ticktext"]) < 5
    assert chart_parts.fitted(narrow, 700)["layout"]["xaxis"]["ticktext"] == list(names)


def test_a_figure_laid_out_by_hand_is_left_alone():
    figure = {"data": [], "layout": {"meta": {"figure": "speed"}}}
    assert chart_parts.fitted(figure, 900) is figure


def test_few_steps_have_a_tick_each_and_shares_do_not():
    def axis(*x):
        made = curves.figure(Curves("t", "x", "y", (Line("a", x, (0.5,) * len(x)),)))
        return made["layout"]["xaxis"]

    assert axis(1.0, 2.0, 4.0)["dtick"] == 1
    assert all("dtick" not in axis(*x) for x in [(0.0, 0.5, 1.0), (0.0, 100.0), (3.0,)])
