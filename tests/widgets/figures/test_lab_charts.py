"""The charts of the labs: empty, one-element and large data, both modes, clicks, room to read."""

from __future__ import annotations

import itertools
import json
import math
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest

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

DRAW = np.random.default_rng(7)


def lines(count: int, points: int) -> tuple[Line, ...]:
    x = tuple(n / max(1, points) for n in range(points))
    return tuple(
        Line(f"criterion {n}", x, tuple(2 + n * s**2 + 0.1 for s in x)) for n in range(count)
    )


def some_curves(count: int, points: int) -> Curves:
    here = (0.5, 2.2) if count else None
    title = "Held-out loss against sparsity"
    return Curves(title, "sparsity", "loss, nats a token", lines(count, points), here, "a note")


def some_bars(count: int) -> layer_bars.LayerBars:
    values = tuple(float(v) for v in DRAW.normal(size=count))
    labels = tuple(f"{n} attention" if count < 20 else str(n) for n in range(count))
    return layer_bars.LayerBars("Norm by layer", "norm", labels, values, values[::-1], count - 1)


def some_heat(rows: int, columns: int, diverging: bool = False) -> heat.Heat:
    values = tuple(tuple(float(v) for v in row) for row in DRAW.normal(size=(rows, columns)))
    x, y = (tuple(map(str, range(n))) for n in (columns, rows))
    return heat.Heat("Load", "expert", "layer", x, y, values, "share", "", diverging)


def some_grid(tokens: int, layers: int, experts: int = 8) -> routing_grid.RoutingGrid:
    first, second = DRAW.integers(0, experts, size=(2, layers, tokens)).tolist()
    weight = DRAW.random((layers, tokens)).tolist()
    pieces = tuple(("def", " __init__", "(", "\n", " self")[n % 5] for n in range(tokens))
    table = (tuple(map(tuple, part)) for part in (first, second, weight))
    marked = ((layers - 1, tokens - 1),) if tokens else ()
    return routing_grid.RoutingGrid(pieces, tuple(range(layers)), *table, experts, marked)


def some_flow(layers: int, experts: int) -> expert_flow.ExpertFlow:
    pairs = [
        (layer, one, two, float(DRAW.random() ** 4))
        for layer in range(layers - 1)
        for one in range(experts)
        for two in range(experts)
    ]
    whole = sum(pair[3] for pair in pairs) / max(1, layers - 1)
    shares = tuple((*pair[:3], pair[3] / whole) for pair in pairs)
    return expert_flow.ExpertFlow(shares, experts, tuple(range(layers)))


def some_steps(count: int) -> waterfall.Waterfall:
    names = ("plain", "LoRA on target", "mask 50 %", "draft re-aligned")
    steps = tuple((names[n % 4], 0.6 if n == 0 else 0.05 * (-1) ** n) for n in range(count))
    return waterfall.Waterfall("Acceptance, step by step", "acceptance", steps, "a note")


CASES = {
    "curves": (curves, [some_curves(0, 0), some_curves(1, 1), some_curves(6, 400)]),
    "spectrum": (spectrum, [spectrum.Spectrum("Singular values", lines(n, m)) for n, m in
                            ((0, 0), (1, 1), (3, 512))]),
    "layer_bars": (layer_bars, [some_bars(0), some_bars(1), some_bars(80)]),
    "heat": (heat, [some_heat(0, 0), some_heat(1, 1, True), some_heat(32, 2000)]),
    "routing_grid": (routing_grid, [some_grid(0, 0), some_grid(1, 1), some_grid(600, 16, 64)]),
    "expert_flow": (expert_flow, [some_flow(0, 0), some_flow(2, 1), some_flow(16, 16)]),
    "waterfall": (waterfall, [some_steps(0), some_steps(1), some_steps(30)]),
}  # fmt: skip
SIZES = ("empty", "one", "large")
EVERY = [
    pytest.param(module, info, id=f"{name}-{size}")
    for name, (module, infos) in CASES.items()
    for size, info in zip(SIZES, infos, strict=True)
]
USUAL = {
    "curves": (curves, some_curves(5, 10)),
    "curves with a long heading": (
        curves,
        some_curves(2, 10)._replace(
            title="Acceptance of the drafter against the strength of every adapter that is on",
            note="every point is the mean of the sum of min(p, q) over all held-out places",
        ),
    ),
    "curves with long names": (
        curves,
        Curves("Acceptance against strength", "strength", "acceptance", tuple(
            line._replace(name=name) for line, name in zip(
                lines(3, 9), ("target + adapter, draft plain", "both adapted", "neither"),
                strict=True)), (0.4, 2.1), "sum of min(p, q) over held-out places"),
    ),
    "spectrum": (spectrum, spectrum.Spectrum("Singular values, layer 3", lines(2, 16))),
    "layer_bars": (layer_bars, some_bars(6)),
    "layer_bars of 32": (layer_bars, some_bars(32)),
    "heat": (heat, some_heat(6, 8)),
    "heat, diverging": (heat, some_heat(6, 8, True)),
    "heat, wide": (heat, some_heat(12, 60)),
    "routing_grid": (routing_grid, some_grid(24, 6)),
    "expert_flow": (expert_flow, some_flow(6, 8)),
    "waterfall": (waterfall, some_steps(4)),
}  # fmt: skip


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
        assert "<i>" not in json.dumps(module.figure(info))
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


# ---- colours -------------------------------------------------------------------------------------

# Machado, Oliveira, Fernandes 2009, severity 1: what each kind of eye sees, in linear RGB.
EYES = {
    "usual": np.eye(3),
    "protan": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deutan": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
}


def lab(colour: str, eye: np.ndarray) -> np.ndarray:
    s = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.array(to_xyz) @ np.clip(eye @ linear, 0, 1) / [0.9505, 1, 1.089]
    fx, fy, fz = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("eye", EYES)
def test_experts_colours_can_be_told_apart(eye):
    for one, other in itertools.combinations(chart_parts.CYCLE, 2):
        gap = np.linalg.norm(lab(one, EYES[eye]) - lab(other, EYES[eye]))
        assert gap > 12, (one, other, gap)


def test_experts_keep_their_colour_in_the_dark():
    assert not set(chart_parts.CYCLE) & set(theme.swap_table())


def test_lines_differ_in_more_than_colour():
    looks = [chart_parts.look(n) for n in range(2 * len(chart_parts.LOOKS))]
    assert len({(look.dash, look.symbol) for look in looks}) == len(looks)
    first = looks[: len(chart_parts.LOOKS)]
    assert len({look.colour for look in first}) == len({look.dash for look in first}) == len(first)


# ---- room for every label, in a browser ----------------------------------------------------------

BOXES = """
([figure, width, height]) => {
  const place = document.getElementById('g');
  place.style.cssText = `width:${width}px;height:${height}px`;
  return Plotly.newPlot(place, figure.data, { ...figure.layout, autosize: false, width, height },
    { ...figure.config, displayModeBar: false }).then(() => {
      const kinds = ['.gtitle', '.xtick text', '.ytick text', '.xtitle', '.ytitle', '.legendtext',
        '.annotation-text', '.heatmap-label text', '.textpoint text', '.bartext', '.cbaxis text'];
      const found = [];
      for (const kind of kinds) for (const node of place.querySelectorAll(kind)) {
        const box = node.getBoundingClientRect();
        if (box.width && node.textContent.trim()) found.push([kind, node.textContent, box.left,
          box.top, box.right, box.bottom]);
      }
      Plotly.purge(place);
      return found;
    });
}
"""


@pytest.fixture(scope="module")
def plotly_page(chromium):
    page = chromium.new_page(viewport={"width": 700, "height": 400})
    page.route("http**", lambda route: route.abort())
    page.set_content('<body style="margin:0"><div id="g"></div>')
    page.add_script_tag(content=export.plotly_js())
    yield page
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [340, 500])
@pytest.mark.parametrize("name", USUAL)
def test_labels_neither_touch_nor_leave_the_picture(plotly_page, name, width):
    module, info = USUAL[name]
    found = plotly_page.evaluate(BOXES, [module.figure(info), width, 260])
    assert len(found) > 3
    for kind, text, left, top, right, bottom in found:
        inside = left >= -1 and top >= -1 and right <= width + 1 and bottom <= 261
        assert inside, f"{kind} {text!r} leaves the picture: {left, top, right, bottom}"
    for one, other in itertools.combinations(found, 2):
        across = min(one[4], other[4]) - max(one[2], other[2])
        down = min(one[5], other[5]) - max(one[3], other[3])
        assert across < 1.5 or down < 2.5, f"{one[:2]} touches {other[:2]}"
