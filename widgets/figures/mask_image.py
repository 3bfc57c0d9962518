"""A weight matrix and its mask as an image: binned to what a screen shows, and back again.

*Idea*: a canvas cell stands for a block of weights. Its shade is their mean size, its share how
many of them are kept; painting it keeps or prunes the whole block.
"""

from __future__ import annotations

import base64
import itertools
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from workbench.core.errors import BadInput

FULL_SHADE = 0.99  # quantile of the blocks that is darkest, so that one outlier does not pale all
MOST_ROWS, MOST_COLUMNS = 64, 320

Edges = tuple[int, ...]


class MaskImage(NamedTuple):
    """What the mask canvas shows.

    Args:
        values: shade of each cell, 0 to 255.
        kept: share of its weights that is kept, 0 (none) to 255 (all).
        strip: a norm for each column of cells.
        row_edges, column_edges: cell i holds the weights from edge i to edge i + 1.
        row_label, column_label: what a row and a column of the weights is, e.g. "output neuron".
    """

    title: str
    values: UInt8[np.ndarray, "r c"]
    kept: UInt8[np.ndarray, "r c"]
    strip: tuple[float, ...]
    row_edges: Edges
    column_edges: Edges
    row_label: str = "output"
    column_label: str = "input"


def mask_image(
    weights: Shaped[np.ndarray, "r c"],
    kept: Bool[np.ndarray, "r c"],
    title: str,
    labels: tuple[str, str] = ("output", "input"),
    most: tuple[int, int] = (MOST_ROWS, MOST_COLUMNS),
) -> MaskImage:
    """The image of a matrix of weights as they were before pruning."""
    values, share, row_edges, column_edges = binned(weights, kept, *most)
    strip = column_norms(weights, column_edges)
    return MaskImage(title, values, share, strip, row_edges, column_edges, *labels)


def binned(
    values: Shaped[np.ndarray, "r c"],
    kept: Bool[np.ndarray, "r c"],
    most_rows: int = MOST_ROWS,
    most_columns: int = MOST_COLUMNS,
) -> tuple[UInt8[np.ndarray, "a b"], UInt8[np.ndarray, "a b"], Edges, Edges]:
    """Shades and kept shares of at most ``most_rows`` x ``most_columns`` blocks, and their edges.

    *Cost*: one pass over the matrix. Values that are no numbers count as 0; a share that is neither
    all nor nothing is told as 2 to 254, so that it is never taken for either.

    *Raises*: BadInput for a mask of another shape or less than one row or column.
    """
    if values.shape != kept.shape or values.ndim != 2:
        raise BadInput(f"kept.shape={kept.shape}: the weights have {values.shape}; give one each")
    if most_rows < 1 or most_columns < 1:
        raise BadInput(f"most_rows, most_columns={most_rows, most_columns}: give 1 or more")
    rows, columns = _edges(values.shape[0], most_rows), _edges(values.shape[1], most_columns)
    sizes = np.abs(np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0))
    shade = _mean(sizes, rows, columns)
    most = np.quantile(shade, FULL_SHADE) if shade.size else 0.0
    most = most or (shade.max() if shade.size else 0.0) or 1.0
    shown = np.clip(np.rint(255 * shade / most), 0, 255).astype(np.uint8)
    share = _mean(kept.astype(np.float64), rows, columns)
    told = np.clip(np.rint(255 * share), 2, 254)
    told[share == 0], told[share == 1] = 0, 255
    return shown, told.astype(np.uint8), rows, columns


def _edges(count: int, most: int) -> Edges:
    """Ends of blocks whose sizes differ by at most one."""
    blocks = min(count, most)
    return tuple(count * i // max(blocks, 1) for i in range(blocks + 1))


def _mean(values: np.ndarray, rows: Edges, columns: Edges) -> np.ndarray:
    if len(rows) < 2 or len(columns) < 2:
        return np.zeros((len(rows) - 1, len(columns) - 1))
    sums = np.add.reduceat(np.add.reduceat(values, rows[:-1], axis=0), columns[:-1], axis=1)
    return sums / np.outer(np.diff(rows), np.diff(columns))


def column_norms(weights: Shaped[np.ndarray, "r c"], edges: Edges) -> tuple[float, ...]:
    """Euclidean norm of a column, the root mean square of them in each block of columns."""
    squares = np.nan_to_num(weights.astype(np.float64)) ** 2
    norms = squares.sum(axis=0)
    return tuple(
        math.sqrt(float(norms[low:high].mean())) for low, high in itertools.pairwise(edges)
    )


def block(row: int, column: int, row_edges: Edges, column_edges: Edges) -> tuple[slice, slice]:
    """The weights behind a canvas cell.

    *Raises*: BadInput for a cell that is not on the canvas.
    """
    for name, at, edges in (("row", row, row_edges), ("column", column, column_edges)):
        if not 0 <= at < len(edges) - 1:
            raise BadInput(f"{name}={at}: the canvas has {len(edges) - 1}, counted from 0")
    return (
        slice(row_edges[row], row_edges[row + 1]),
        slice(column_edges[column], column_edges[column + 1]),
    )


def painted(
    kept: Bool[np.ndarray, "r c"],
    cells: Iterable[Sequence[int]],
    keep: bool,
    row_edges: Edges,
    column_edges: Edges,
) -> Bool[np.ndarray, "r c"]:
    """A new mask after a ``paint`` event: the blocks of its cells are kept or pruned."""
    mask = kept.copy()
    for cell in cells:
        if len(cell) != 2 or not all(type(at) is int for at in cell):
            raise BadInput(f"cells: {cell!r} is not [row, column] in whole numbers")
        row, column = cell
        mask[block(row, column, row_edges, column_edges)] = keep
    return mask


def canvas_data(image: MaskImage) -> dict[str, Any]:
    """What the view ``mask_canvas`` takes as its ``data``."""
    rows, columns = image.values.shape
    return {
        "rows": rows,
        "columns": columns,
        "values": image.values.ravel().tolist(),
        "kept": image.kept.ravel().tolist(),
        "strip": [float(f"{norm:.5g}") for norm in image.strip],
        "title": image.title,
        "row_label": image.row_label,
        "column_label": image.column_label,
        "row_edges": list(image.row_edges),
        "column_edges": list(image.column_edges),
    }


def rows(image: MaskImage) -> list[dict[str, Any]]:
    """One row per cell."""
    return [
        {
            "row": image.row_edges[row],
            "column": image.column_edges[column],
            "shade": int(image.values[row, column]),
            "kept_ratio": int(image.kept[row, column]) / 255,
        }
        for row, column in np.ndindex(image.values.shape)
    ]


def svg(image: MaskImage, width: float = 480.0) -> str:
    """The static twin: the shades as a picture inside, see-through so that they hold on any paper.

    Pruned cells differ in colour and in that every second pixel of them is left out.
    """
    count = float(np.mean(image.kept)) / 255 if image.kept.size else 0.0
    body, top = parts.heads(image.title, f"kept {theme.percent(count)} · dotted: pruned")
    tall, columns = image.values.shape
    if not tall or not columns:
        body.append(draw.text(18, top + 8, "no weights yet", "muted"))
        return draw.document(width, top + 24, body, image.title)
    wide, high = width - 36, min(220.0, max(60.0, (width - 36) * tall / columns))
    source = "data:image/png;base64," + base64.b64encode(png(image)).decode()
    body.append(
        f'<image x="18" y="{top:.1f}" width="{wide:.1f}" height="{high:.1f}" href="{source}"'
        ' preserveAspectRatio="none" style="image-rendering:pixelated"/>'
    )
    body.append(draw.rect(18, top, wide, high, None, "edge"))
    most, foot = max(image.strip, default=0.0) or 1.0, top + high + 4
    for column, norm in enumerate(image.strip):
        x, step = 18 + wide * column / columns, wide / columns
        body.append(draw.rect(x, foot, step * 0.8, 16 * norm / most, "accent_soft"))
    words = f"{image.row_label}s down, {image.column_label}s across · bars: norm of each"
    body.append(draw.text(18, foot + 32, words, "muted", font_size=11))
    return draw.document(width, foot + 42, body, image.title)


def png(image: MaskImage) -> bytes:
    """The cells as a PNG of four pixels each, its opacity the shade."""
    kept = image.kept.repeat(2, 0).repeat(2, 1)
    shade = image.values.repeat(2, 0).repeat(2, 1)
    out = kept < 128
    pixels = np.zeros((*kept.shape, 4), np.uint8)
    pixels[..., :3] = np.where(out[..., None], _rgb("corrected"), _rgb("accent"))
    pixels[..., 3] = np.where(out, 60 + shade // 2, 12 + shade * (243 / 255)).astype(np.uint8)
    across, down = np.arange(kept.shape[1]), np.arange(kept.shape[0])
    pixels[out & ((across[None] + down[:, None]) % 2 == 1), 3] = 0
    height, width = kept.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)  # 0 = no filter
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)  # 8 bits a channel, RGBA
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _rgb(role: str) -> tuple[int, ...]:
    colour = getattr(theme.LIGHT, role)
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
