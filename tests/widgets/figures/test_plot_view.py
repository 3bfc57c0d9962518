"""The view of a plotly figure: drawn offline, clicked, saved, dressed, and how wide it stands."""

from __future__ import annotations

import pytest
from traces import make_trace

from widgets import theme
from widgets.figures import acceptance_map, export
from widgets.figures.place import At
from widgets.views import esm

pytestmark = pytest.mark.browser
TRACE = make_trace(54, drawn=True)


def plot_state(mode="auto"):
    return {"fig": acceptance_map.figure(acceptance_map.info(TRACE, At(4, 0))), "mode": mode}


def load_plotly(view):
    view.page.evaluate(
        "(text) => import(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })))",
        esm.plotly_script(),
    )
    view.page.wait_for_selector(".canvas .heatmaplayer image", state="attached")


def test_plot_draws_once_plotly_arrives_and_reports_clicks(stage):
    view = stage(esm.PLOT, plot_state(), height=180)
    assert "has arrived" in view.page.inner_text("body")
    load_plotly(view)
    assert view.page.evaluate("() => typeof window.Plotly") == "undefined", "leaks a global"
    assert view.page.locator(".canvas").get_attribute("aria-label") == acceptance_map.TITLE
    drag = view.page.locator(".nsewdrag").first.bounding_box()
    x, y = drag["x"] + drag["width"] * 10.5 / 54, drag["y"] + drag["height"] / 8
    for shift in (1, 0):
        view.page.mouse.move(x + shift, y)
        view.page.wait_for_timeout(120)
    view.page.mouse.click(x, y)
    (event,) = view.said(1)
    assert event["kind"] == "point" and event["figure"] == "acceptance_map"
    assert event["customdata"] == [10, 1] and event["x"] == 11


def test_plot_saves_a_picture(stage):
    view = stage(esm.PLOT, plot_state(), height=180)
    load_plotly(view)
    for kind in ("PNG", "SVG"):
        with view.page.expect_download() as saved:
            view.page.get_by_label(f"Save this picture as {kind}").click()
        assert saved.value.suggested_filename == f"acceptance_map.{kind.lower()}"


@pytest.mark.parametrize(("dark", "paper"), [(False, theme.LIGHT.paper), (True, theme.DARK.paper)])
def test_plot_wears_the_colours_of_its_host(stage, dark, paper):
    view = stage(esm.PLOT, plot_state(), height=180, dark=dark)
    load_plotly(view)
    painted = view.page.evaluate(
        "() => document.querySelector('.canvas .main-svg').style.background"
    )
    rgb = ", ".join(str(int(paper[i : i + 2], 16)) for i in (1, 3, 5))
    assert painted == f"rgb({rgb})"


@pytest.mark.parametrize("dark", [False, True])
def test_the_exported_page_draws_itself_offline(chromium, dark):
    page = chromium.new_page(color_scheme="dark" if dark else "light")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(export.to_html(plot_state()["fig"]))
    page.wait_for_selector("#figure .heatmaplayer image", state="attached")
    paper = page.evaluate("() => document.querySelector('.main-svg').style.background")
    assert paper == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")
    assert page.locator(".modebar-btn").count() == 1, "more than the camera"
    assert not [url for url in asked if url.startswith("http")]
    page.close()


def test_plot_tells_how_wide_it_stands_once_a_change(stage):
    view = stage(esm.PLOT, plot_state(), width=760, height=180)
    load_plotly(view)
    width = view.page.evaluate("() => document.querySelector('.canvas').clientWidth")
    assert width > 700 and view.page.evaluate("() => model.get('width_px')") == width // 20 * 20
    view.set("width_px", 500)  # of a second view of the same figure, elsewhere on the page
    view.set("fig", plot_state()["fig"])
    view.drawn()
    assert view.page.evaluate("() => model.get('width_px')") == 500, "two views would never end"
    view.page.evaluate("() => { document.getElementById('el').style.width = '430px' }")
    view.page.wait_for_function("() => model.get('width_px') === 420")
