"""The charts of the labs: colours that any eye tells apart, and room for every label."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from lab_infos import USUAL

from widgets import theme
from widgets.figures import chart_parts, curves, export
from widgets.figures.curves import Curves, Line

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
    page = chromium.new_page(viewport={"width": 800, "height": 400})
    page.route("http**", lambda route: route.abort())
    page.set_content('<body style="margin:0"><div id="g"></div>')
    page.add_script_tag(content=export.plotly_js())
    yield page
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("fitted", [False, True], ids=["as it is", "fitted"])
@pytest.mark.parametrize("width", [340, 500, 760])
@pytest.mark.parametrize("name", USUAL)
def test_labels_neither_touch_nor_leave_the_picture(plotly_page, name, width, fitted):
    module, info = USUAL[name]
    figure = module.figure(info)
    figure = chart_parts.fitted(figure, width) if fitted else figure
    found = plotly_page.evaluate(BOXES, [figure, width, 260])
    assert len(found) > 3
    for kind, text, left, top, right, bottom in found:
        inside = left >= -1 and top >= -1 and right <= width + 1 and bottom <= 261
        assert inside, f"{kind} {text!r} leaves the picture: {left, top, right, bottom}"
    for one, other in itertools.combinations(found, 2):
        across = min(one[4], other[4]) - max(one[2], other[2])
        down = min(one[5], other[5]) - max(one[3], other[3])
        assert across < 1.5 or down < 2.5, f"{one[:2]} touches {other[:2]}"


AXIS = """
async (figures) => {
  const place = document.getElementById('g');
  place.style.cssText = 'width:440px;height:260px';
  const found = [];
  for (const { data, layout } of figures) {
    await Plotly.react(place, data, { ...layout, autosize: false, width: 440, height: 260 });
    const top = (kind) => (place.querySelector(kind) || place).getBoundingClientRect().top;
    found.push([top('.xtitle'), top('.xtick text')]);
  }
  Plotly.purge(place);
  return found;
}
"""


@pytest.mark.browser
def test_the_axis_title_stands_under_the_ticks_whatever_was_drawn_before(plotly_page):
    def figure(count: int, note: str):
        lines = tuple(Line(f"draft {n}", (0.0, 4.0), (0.2, 0.3)) for n in range(count))
        return curves.figure(Curves("Acceptance", "step", "acceptance", lines, None, note))

    shown = [figure(*said) for said in [(2, "recorded"), (1, ""), (0, ""), (3, ""), (1, "so far")]]
    found = plotly_page.evaluate(AXIS, shown)
    alone = [plotly_page.evaluate(AXIS, [one])[0] for one in shown]
    for after_others, by_itself in zip(found, alone, strict=True):
        assert after_others == pytest.approx(by_itself, abs=1)
