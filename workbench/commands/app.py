"""``workbench app``: the dashboard, served on this machine."""

from __future__ import annotations

import argparse
import socket

from workbench.commands import require
from workbench.core.errors import BadInput

ADDRESS = "127.0.0.1"
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


def check_port(port: int) -> None:
    """Refuse a port that cannot be listened on.

    Raises:
        BadInput: out of range, taken, or not allowed.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "must lie in 0 to 65535"
            raise BadInput(f"--port {port}: {reason}; choose another one") from None


def run(args: argparse.Namespace) -> int:
    require("app", "panel", "bokeh", "plotly")
    check_port(args.port)
    from widgets.app import serve

    print(f"The dashboard is at http://{ADDRESS}:{args.port} - Ctrl-C ends it.", flush=True)
    try:
        serve(port=args.port, show=not args.no_browser)
    except KeyboardInterrupt:
        print()
    return 0
