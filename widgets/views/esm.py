"""The text of an ESM view: the theme as constants, what every view shares, then the view itself.

One self-contained module text, because neither host can resolve imports between our files offline.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from widgets import theme

TREE, STREAM, PLOT, BARS = "draft_tree", "token_stream", "plot", "law_bars"
MASK, PLOTLY = "mask_canvas", "plotly_lib"
PARTS = {MASK: ("mask_paint.js",)}  # files that stand before a view's own


@cache
def source(name: str) -> str:
    """The ESM text of a view: the name of one of the .js files here, say ``draft_tree``."""
    here = files("widgets.views")
    fates = {name: [style.name, style.meaning] for name, style in theme.FATES.items()}
    constants = {"DW_CSS": theme.css(), "DW_SWAP": theme.swap_table(), "DW_FATES": fates}
    constants["DW_MONO"] = theme.MONO
    head = "".join(f"const {key} = {json.dumps(value)};\n" for key, value in constants.items())
    names = ("host.js", *PARTS.get(name, ()), f"{name}.js")
    parts = [(here / file).read_text("utf-8") for file in names]
    return head + "\n".join(parts)


@cache
def plotly_script() -> str:
    """plotly.js from the installed plotly package as a script that defines ``__dwPlotly`` once.

    The page's own ``Plotly``, if any, is left as it was.
    """
    library = (files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    return (
        "if (!globalThis.__dwPlotly) {\n"
        "const before = globalThis.Plotly, box = { exports: {} };\n"
        "(function (module, exports, define) {\n"
        f"{library}\n"
        "}).call(globalThis, box, box.exports, undefined);\n"
        "globalThis.__dwPlotly = box.exports.newPlot ? box.exports : globalThis.Plotly;\n"
        "if (before) globalThis.Plotly = before; else delete globalThis.Plotly;\n"
        "globalThis.dispatchEvent(new Event('dw-plotly'));\n"
        "}\n"
    )
