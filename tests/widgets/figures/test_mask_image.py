"""A mask as an image: what a cell shows, which weights it stands for, the static picture."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest

from widgets.figures import mask_image as images
from workbench.core.errors import BadInput

DRAW = np.random.default_rng(5)


def weights(rows: int, columns: int) -> np.ndarray:
    return DRAW.normal(size=(rows, columns)).astype(np.float32)


def some_image(rows: int, columns: int, ratio: float = 0.5) -> images.MaskImage:
    w = weights(rows, columns)
    kept = np.abs(w) > (np.quantile(np.abs(w), ratio) if w.size else 0)
    return images.mask_image(w, kept, "q_proj of layer 3")


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (64, 320), (65, 321), (1000, 3)])
def test_blocks_tile_the_matrix_evenly(shape):
    w, kept = weights(*shape), DRAW.random(shape) < 0.5
    values, share, rows, columns = images.binned(w, kept, 64, 320)
    assert values.shape == share.shape == (min(64, shape[0]), min(320, shape[1]))
    seen = np.zeros(shape, int)
    for row, column in np.ndindex(values.shape):
        block = images.block(row, column, rows, columns)
        seen[block] += 1
        ratio = float(kept[block].mean())
        assert abs(share[row, column] / 255 - ratio) < 0.01
        assert (share[row, column] == 255) == (ratio == 1) and (share[row, column] == 0) == (
            ratio == 0
        )
    assert (seen == 1).all(), "a weight under no cell or under two"
    for edges in (rows, columns):
        assert np.ptp(np.diff(edges)) <= 1


def test_shades_follow_the_mean_size():
    w = np.array([[0.0, 1.0, -2.0, 4.0]])
    values, *_ = images.binned(w, w != 0)
    assert values[0, 0] == 0 and (np.diff(values[0].astype(int)) > 0).all()
    shades = values[0].tolist()
    assert shades[2] == pytest.approx(2 * shades[1], abs=2) and shades[3] == 255
    pair, *_ = images.binned(np.array([[1.0, -3.0, 2.0, 2.0]]), np.ones((1, 4), bool), 1, 2)
    assert pair.tolist() == [[255, 255]]


def test_one_outlier_does_not_pale_the_rest():
    w = np.ones((40, 40))
    w[0, 0] = 1e6
    values, *_ = images.binned(w, w > 0, 40, 40)
    assert np.median(values) == 255
    alone = np.zeros((40, 40))
    alone[3, 3] = 2.0
    assert images.binned(alone, alone > 0, 40, 40)[0][3, 3] == 255, "a lone weight is not seen"


def test_what_is_no_number_counts_as_nothing():
    w = np.array([[np.nan, np.inf, 1.0]])
    values, *_ = images.binned(w, np.ones((1, 3), bool))
    assert values.tolist() == [[0, 0, 255]]
    assert (images.binned(np.zeros((3, 3)), np.ones((3, 3), bool))[0] == 0).all()


def test_shares_are_never_taken_for_ones():
    kept = np.zeros((600, 600), bool)
    kept[0, 0] = True
    _, share, *_ = images.binned(np.ones((600, 600)), kept, 1, 1)
    assert share.tolist() == [[2]], "1 would read as kept in data of zeros and ones"


def test_painting_changes_the_blocks_and_nothing_else():
    kept = DRAW.random((130, 650)) < 0.5
    _, _, rows, columns = images.binned(np.ones(kept.shape), kept, 64, 320)
    mask = images.painted(kept, [[0, 0], [63, 319], [5, 7]], False, rows, columns)
    touched = np.zeros(kept.shape, bool)
    for cell in ((0, 0), (63, 319), (5, 7)):
        touched[images.block(*cell, rows, columns)] = True
    assert not mask[touched].any() and (mask[~touched] == kept[~touched]).all()
    assert images.painted(mask, [[5, 7]], True, rows, columns)[
        images.block(5, 7, rows, columns)
    ].all()
    _, share, *_ = images.binned(np.ones(kept.shape), mask, 64, 320)
    assert share[5, 7] == 0 and share[0, 0] == 0


@pytest.mark.parametrize("cell", [[64, 0], [0, 320], [-1, 0], [0], [0.5, 0], ["0", 0], [True, 0]])
def test_a_cell_off_the_canvas_is_refused(cell):
    kept = np.ones((64, 320), bool)
    _, _, rows, columns = images.binned(np.ones(kept.shape), kept)
    with pytest.raises(BadInput, match=r"canvas has|whole numbers"):
        images.painted(kept, [cell], False, rows, columns)


def test_bad_sizes_are_refused():
    with pytest.raises(BadInput, match="one each"):
        images.binned(np.ones((2, 3)), np.ones((3, 2), bool))
    with pytest.raises(BadInput, match="1 or more"):
        images.binned(np.ones((2, 3)), np.ones((2, 3), bool), 0, 5)


def test_norms_are_of_the_columns():
    w = np.array([[3.0, 0.0], [4.0, 1.0]])
    assert images.column_norms(w, (0, 1, 2)) == (5.0, 1.0)
    assert images.column_norms(w, (0, 2)) == (pytest.approx(np.sqrt(13)),)


def test_the_canvas_gets_plain_numbers_of_the_right_length():
    image = some_image(70, 400)
    data = images.canvas_data(image)
    assert (data["rows"], data["columns"]) == (64, 320)
    assert len(data["values"]) == len(data["kept"]) == 64 * 320 and len(data["strip"]) == 320
    assert {type(v) for key in ("values", "kept") for v in data[key]} == {int}
    assert data["values"][320 + 5] == image.values[1, 5], "row by row"
    assert len(images.rows(image)) == 64 * 320
    assert images.canvas_data(image) == data


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (6, 12), (64, 320)])
def test_the_static_twin_holds_the_picture(shape):
    image = some_image(*shape)
    text = images.svg(image, 400)
    ElementTree.fromstring(text)
    packed = re.search(r"data:image/png;base64,([^\"]+)", text)
    assert (packed is None) == (0 in shape), "an empty one says so instead"
    if packed is None:
        assert "no weights yet" in text
        return
    pixels = read_png(base64.b64decode(packed[1]))
    assert pixels.shape == (2 * shape[0], 2 * shape[1], 4)
    for row, column in np.ndindex(shape):
        four = pixels[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        dotted = (four[..., 3] == 0).sum() == 2
        assert dotted == (image.kept[row, column] < 128), "pruned and kept look alike in grey"


def read_png(data: bytes) -> np.ndarray:
    """Pixels of an unfiltered RGBA file; every chunk's checksum is checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, {}
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            kind + body
        )
        found[kind], at = body, at + 12 + size
    wide, high, *rest = struct.unpack(">IIBBBBB", found[b"IHDR"])
    assert rest == [8, 6, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(found[b"IDAT"]), np.uint8).reshape(high, 1 + 4 * wide)
    assert (lines[:, 0] == 0).all()
    return lines[:, 1:].reshape(high, wide, 4)
