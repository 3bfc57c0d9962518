"""``workbench app``: the dashboard, served on this machine."""

from __future__ import annotations

import argparse

from workbench.commands import require

SUMMARY = "serve the dashboard on 127.0.0.1"
DESCRIPTION = """\
Serve the same labs as a web page, without notebooks. It listens on this machine only; every
browser tab gets its own session. Ctrl-C ends it."""
EXAMPLES = ("workbench app", "workbench app --no-browser --port 5007")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5006, help="port to listen on (%(default)s)")
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address instead of opening it"
    )


def run(args: argparse.Namespace) -> int:
    require("app", "panel", "bokeh", "plotly")
    from widgets.app import serve

    serve(port=args.port, show=not args.no_browser)
    return 0
