"""``workbench lab``: JupyterLab on the tour, with nothing fetched from outside."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from workbench.commands import require
from workbench.core.errors import BadInput

SUMMARY = "open JupyterLab on the guided tour"
DESCRIPTION = """\
Open JupyterLab in the browser, on the guided tour or on a notebook of yours. It listens on this
machine only and asks no other machine for anything. Ctrl-C, twice, ends it."""
EXAMPLES = (
    "workbench lab",
    "workbench lab my_notebook.ipynb",
    "workbench lab --no-browser --port 8899",
)
SETTINGS = Path(__file__).resolve().parent / "lab_settings"
TOUR = Path("notebooks") / "00_tour.ipynb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", nargs="?", type=Path, help="notebook to open (the tour)")
    parser.add_argument("--port", type=int, default=8888, help="port to listen on (%(default)s)")
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address instead of opening it"
    )


def find_notebook(asked: Path | None) -> Path | None:
    """The notebook asked for, else the tour of the checkout, else None.

    Raises:
        BadInput: a notebook that does not exist.
    """
    if asked is not None:
        if not asked.is_file():
            raise BadInput(f"notebook={str(asked)!r}: no such file")
        return asked.resolve()
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (root / TOUR).is_file():
            return root / TOUR
    return None


def lab_command(notebook: Path | None, port: int, browser: bool) -> list[str]:
    """The command line of the server."""
    words = [sys.executable, "-m", "jupyterlab", f"--port={port}", "--ServerApp.ip=127.0.0.1"]
    words += [
        "--LabApp.extension_manager=readonly",
        "--LabApp.news_url=",
        "--ServerApp.log_level=WARN",  # which leaves the address and what goes wrong
        f"--LabApp.app_settings_dir={SETTINGS}",
    ]
    if not browser:
        words.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        words.append("--allow-root")
    if notebook is not None:
        root = _root_of(notebook)
        page = quote(notebook.relative_to(root).as_posix())
        # The printed address leads there too: over ssh nothing but that is had.
        words += [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{page}"]
    return words


def _root_of(notebook: Path) -> Path:
    """What the file browser shows: the checkout for the tour, else the notebook's folder."""
    return notebook.parents[1] if notebook.parent.name == "notebooks" else notebook.parent


def run(args: argparse.Namespace) -> int:
    require("lab", "jupyterlab", "ipywidgets", "anywidget", "plotly")
    notebook = find_notebook(args.notebook)
    words = lab_command(notebook, args.port, not args.no_browser)
    server = subprocess.Popen(words)
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:  # the server heard it too and asks whether it is meant
            continue
