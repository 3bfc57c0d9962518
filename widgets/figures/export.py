"""Take a picture out of the lab: a standalone page, an SVG, or the data behind it.

PNG is made in the browser (the view's PNG button, or plotly's camera): no converter is needed.
"""

from __future__ import annotations

import csv
import io
import json
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from widgets import theme


@cache
def plotly_js() -> str:
    """plotly.js as the installed plotly package carries it; nothing is fetched."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")


def to_html(figure: dict[str, Any], title: str = "") -> str:
    """One page that needs no network: plotly.js (5 MB) and the figure inside it.

    Args:
        figure: what a picture's ``figure(info)`` returned, in the light palette; the page follows
            the reader's system into dark.
        title: of the page; empty takes the figure's own.
    """
    meta = figure["layout"].get("meta", {})
    name = escape(title or meta.get("figure", "figure").replace("_", " "))
    packed = json.dumps(figure).replace("</", "<\\/")
    swap = json.dumps(theme.swap_table())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{theme.css()} body {{ margin: 0; }} #figure {{ height: 100vh; }}</style>"
        f"<script>{plotly_js()}</script></head>"
        f'<body class="dw"><div id="figure"></div><script>\n'
        f"const figure = {packed}, swap = {swap};\n{_SCRIPT}</script></body></html>"
    )


_SCRIPT = """\
const wish = matchMedia("(prefers-color-scheme: dark)");
function dress(value) {
  if (!wish.matches) return value;
  if (typeof value === "string") return swap[value] ?? value;
  if (Array.isArray(value)) return value.map(dress);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, dress(item)]));
  }
  return value;
}
function draw() {
  const shown = dress(JSON.parse(JSON.stringify(figure)));
  Plotly.react("figure", shown.data, shown.layout, shown.config);
}
wish.addEventListener("change", draw);
draw();
"""


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The rows of a picture as a table, a header first; unknown values are empty."""
    if not rows:
        return ""
    page = io.StringIO()
    table = csv.DictWriter(page, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return page.getvalue()


def to_json(rows: list[dict[str, Any]]) -> str:
    """The rows of a picture as a JSON list."""
    return json.dumps(rows, ensure_ascii=False, indent=1)
