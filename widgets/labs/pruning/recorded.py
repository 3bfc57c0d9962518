"""What the pruning lab opens on: the embedded target's weights, and every criterion measured on it.

Record it again with ``python -m widgets.labs.pruning.recorded`` (about two minutes).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import numpy as np

from widgets.figures import mask_image
from widgets.labs import recordings
from workbench.bench.sparsity import Point
from workbench.core.method import methods

NAME = "pruning.json"
MODEL = "zoo:target"


class Recording(msgspec.Struct, frozen=True):
    """One matrix as shades, the curves of all criteria, and what each layer is worth."""

    title: str
    shades: bytes
    strip: tuple[float, ...]
    row_edges: tuple[int, ...]
    column_edges: tuple[int, ...]
    curves: dict[str, list[Point]]
    dense: Point
    harm: list[Point]

    @property
    def known(self) -> dict[str, list[Point]]:
        """Curves of the criteria that are still there."""
        names = {card.name for card in methods("pruner")}
        return {name: points for name, points in self.curves.items() if name in names}

    @property
    def canvas(self) -> dict[str, Any]:
        """The view's data."""
        shape = (len(self.row_edges) - 1, len(self.column_edges) - 1)
        shades = np.frombuffer(self.shades, np.uint8).reshape(shape)
        whole = np.full(shape, 255, np.uint8)
        edges = (self.row_edges, self.column_edges)
        title = f"recorded example · {self.title}"
        return mask_image.canvas_data(
            mask_image.MaskImage(title, shades, whole, self.strip, *edges)
        )


@cache
def recording() -> Recording | None:
    """The recorded results; None where the package was installed without them."""
    return recordings.read(NAME, Recording)


def record() -> Recording:
    """Measure in the lab's own controller."""
    from widgets.labs.pruning.controller import PruningLab

    lab = PruningLab(MODEL, "")
    for verb in (lab.harm, lab.curves):
        verb()
        if not lab.worker.wait(1800) or lab.contents()["error"]:
            raise RuntimeError(f"the curves to record went wrong: {lab.contents()['error']}")
    image, sweeps = lab.image(), lab.sweeps
    assert image is not None and sweeps.dense is not None  # measured above
    shades = image.values.tobytes()
    edges = (image.row_edges, image.column_edges)
    done = Recording(
        image.title, shades, image.strip, *edges, sweeps.curves, sweeps.dense, sweeps.harm
    )
    lab.close()
    return done


if __name__ == "__main__":
    recordings.write(NAME, record())
