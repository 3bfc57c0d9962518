"""Run a notebook and store its outputs the way the repository keeps them.

Widget state and live-widget references are left out, so that the stored page shows the static twins
(GitHub, nbconvert, JupyterLab before a cell is run) and stays small.

Use: ``python -m widgets.labs.notebook notebooks/00_tour.ipynb``
"""

from __future__ import annotations

import sys
from pathlib import Path

LIVE = "application/vnd.jupyter.widget-view+json"
TIMEOUT_S = 300


def store(path: Path) -> int:
    """Execute in place and write the cleaned outputs; returns the file's size in bytes."""
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    client = NotebookClient(book, timeout=TIMEOUT_S, store_widget_state=False)
    client.execute(cwd=str(path.resolve().parent))
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(LIVE, None)
    book.metadata.pop("widgets", None)
    nbformat.write(book, path)
    return path.stat().st_size


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {store(Path(name)) / 1000:.0f} kB")
