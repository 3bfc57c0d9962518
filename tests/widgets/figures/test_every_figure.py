"""What every picture must do, found by discovery: empty, one-round and 500-round traces."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from types import ModuleType
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
from traces import CHAIN, grow, make_trace

import widgets.figures
from widgets import theme
from widgets.figures import export
from widgets.figures.place import At

NAMES = [found.name for found in pkgutil.iter_modules(widgets.figures.__path__)]
MODULES = [importlib.import_module(f"widgets.figures.{name}") for name in NAMES]
PICTURES = [module for module in MODULES if hasattr(module, "info")]
PLOTS = [module for module in PICTURES if hasattr(module, "figure")]
TRACES = {
    "empty": lambda: make_trace(0),
    "one round": lambda: make_trace(1),
    "54 drawn": lambda: make_trace(54, drawn=True),
    "500 rounds of 64 nodes": lambda: make_trace(500, parent=grow(64, 3)),
    "nothing drafted": lambda: make_trace(3, parent=()),
    "no laws kept": lambda: make_trace(8, drawn=True, laws=False),
    "greedy chain, no baseline": lambda: make_trace(9, parent=CHAIN, greedy=True, plain_ms=None),
}
PLACES = [None, At(0, -1), At(0, 0), At(10**6, 10**6), At(-3, -7)]


def short(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def test_discovery_finds_the_pictures():
    found = {short(module) for module in PICTURES}
    assert found >= {
        "draft_tree", "node_law", "acceptance_map", "accepted_length", "time_split", "speed",
        "token_stream",
    }  # fmt: skip
    assert {short(m) for m in PICTURES} - {short(m) for m in PLOTS} == {"token_stream"}


@pytest.fixture(params=TRACES, scope="module")
def trace(request):
    return TRACES[request.param]()


@pytest.mark.parametrize("module", PICTURES, ids=short)
def test_info_svg_and_rows(module, trace):
    for at in PLACES:
        info = module.info(trace, at)
        assert info == module.info(trace, at), "not a pure function of the trace"
        root = ElementTree.fromstring(module.svg(info))
        assert root.tag.endswith("svg") and float(root.get("width")) > 0
        rows = module.rows(info)
        assert len({tuple(row) for row in rows}) <= 1, "rows with different columns"
        assert json.loads(export.to_json(rows)) == rows
        assert export.to_csv(rows).count("\n") >= len(rows)


@pytest.mark.parametrize("module", PLOTS, ids=short)
def test_plotly_accepts_it_and_it_has_no_surprises(module, trace):
    figure = module.figure(module.info(trace, At(0, 0)))
    text = json.dumps(figure, allow_nan=False)
    assert "http" not in text
    checked = go.Figure(figure["data"], figure["layout"])  # raises on an unknown property
    assert checked.layout.meta["figure"] == short(module)
    assert figure["config"]["displaylogo"] is False
    assert figure["config"]["modeBarButtons"] == [["toImage"]]  # no share button
    layout = figure["layout"]
    assert layout["title"]["x"] == 0 and layout["template"]["layout"]["paper_bgcolor"]


@pytest.mark.parametrize("module", PLOTS, ids=short)
def test_the_dark_figure_is_the_light_one_in_other_colours(module, trace):
    info = module.info(trace, At(0, 0))
    light, dark = module.figure(info, "light"), module.figure(info, "dark")
    assert theme.in_mode(light, "dark") == dark
    left = [colour for colour in theme.swap_table() if f'"{colour}"' in json.dumps(dark)]
    assert not left, f"light colours in the dark figure: {left}"
    with pytest.raises(ValueError, match="mode='sepia'"):
        module.figure(info, "sepia")


@pytest.mark.parametrize("module", PLOTS, ids=short)
def test_an_empty_trace_says_so(module):
    figure = module.figure(module.info(make_trace(0)))
    assert figure["data"] == []
    words = json.dumps([figure["layout"].get("annotations"), figure["layout"]["title"]])
    assert "yet" in words
    assert "yet" in module.svg(module.info(make_trace(0)))


def test_pieces_that_look_like_markup_stay_literal():
    trace = make_trace(2, drawn=True)
    trace = trace.with_(pieces=dict.fromkeys(trace.pieces, '<i>&"x'))
    for module in PICTURES:
        info = module.info(trace, At(0, 0))
        ElementTree.fromstring(module.svg(info))
        if module in PLOTS:
            assert "<i>" not in json.dumps(module.figure(info))


@pytest.mark.parametrize("module", PLOTS, ids=short)
def test_the_standalone_page_needs_no_network(module):
    page = export.to_html(module.figure(module.info(make_trace(3), At(0, 0))))
    own = page.replace(export.plotly_js(), "")
    assert len(page) - len(own) > 1_000_000, "plotly.js is not inside"
    assert "src=" not in own and "http" not in own and "href" not in own


def test_figures_import_neither_torch_nor_a_ui_library():
    code = (
        "import sys, importlib\n"
        f"[importlib.import_module('widgets.figures.' + n) for n in {NAMES!r}]\n"
        "bad = {'torch', 'ipywidgets', 'anywidget', 'panel', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {bad}' if bad else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
