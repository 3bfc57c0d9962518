"""The pruning lab without its looks: criteria, a brush, sweeps, retraining, files.

No UI library is imported here. Every verb may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from widgets.figures import mask_image
from widgets.labs.bench import DIALS, Bench
from widgets.labs.board import Cell, Section
from widgets.labs.pruning import form, pictures
from widgets.labs.pruning.recorded import recording
from widgets.labs.pruning.state import (
    Sheet,
    Stroke,
    Sweeps,
    kept_of,
    matrix_name,
    sheet,
    told,
)
from widgets.labs.pruning.work import PruningWork
from workbench.core.errors import BadInput, WorkbenchError
from workbench.core.masks import MaskSet
from workbench.core.method import methods
from workbench.models.prune import Pruned


class PruningLab(PruningWork):
    """State of one pruning lab.

    Args:
        model: name or folder of a checkpoint, or a loaded model (given back as it was).
        draft: for the dials; empty = none.
        mask: a mask to begin with.
    """

    title = "Pruning"
    knobs: Mapping[str, str] = MappingProxyType(
        {
            **Bench.knobs,
            "curves": "Curves",
            "harm": "Layers",
            "retrain": "Retrain",
            "save": "Save mask",
            "cut": "Cut out",
            "speed": "2:4 speed",
        }
    )
    bands: tuple[tuple[Cell, ...], ...] = (
        (Cell("canvas", "canvas", 300, 1.9), Cell("facts", "html", 300, 1.0)),
        (Cell("loss", "plot", 260), Cell("acceptance", "plot", 260)),
        (Cell("bars", "plot", 200), DIALS._replace(share=1.5)),
    )
    accepts = ".safetensors"
    opens = "Open a saved mask"
    looks = frozenset({"matrix", "layer", "bars"})
    _spot: tuple[str, int, int] | None = None  # matrix and cell that were looked at
    _spot_said: tuple[Any, tuple[str, str]] | None = None

    # ---- reading ---------------------------------------------------------------------------------

    def forms(self) -> tuple[Section, ...]:
        """The left column."""
        layers = len(self._kept) if self._stats else 0
        return form.sections(self.given, layers, self._roles, self._across)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The slider of one layer shows that layer's own ratio, or everybody's.

        It is one field for all layers: a form that changed with every move of a slider would be
        built anew under the hand.
        """
        now = super().settings
        own = f"ratio.{int(now.get('layer', 0))}"
        return {**now, "layer_ratio": now.get(own, self.value("ratio", 0.0))}

    def put(self, key: str, value: Any) -> bool:
        """A layer's ratio is kept under that layer's number."""
        key = f"ratio.{int(self.value('layer', 0))}" if key == "layer_ratio" else key
        return super().put(key, value)

    @property
    def titles(self) -> Mapping[str, Mapping[Any, str]]:
        return {
            "pruner": {card.name: card.title for card in methods("pruner")},
            "matrix": form.ACROSS,
        }

    def verbs(self) -> frozenset[str]:
        found = super().verbs() | {"curves", "harm", "retrain"}
        found |= {"save"} if self.masks.weights or self.masks.parts else set()
        found |= {"cut"} if self._cut is not None else set()
        return frozenset(found | ({"speed"} if ":" in str(self._pattern()) else set()))

    def cells(self) -> dict[str, Any]:
        """The canvas, the facts and the three charts."""
        now, example = self.settings, recording()
        bars = pictures.bars(self.sweeps, now["bars"], self._kept, int(now.get("layer", 0)))
        canvas, facts = self._canvas(), self._facts(now)
        if not self._stats and example is not None:  # no model yet
            old = Sweeps(dense=example.dense, harm=example.harm)
            kept = [1.0] * len(example.harm)
            bars = pictures.bars(old, form.BARS[1], kept, -1, "recorded example")
            canvas, facts = example.canvas, pictures.opening_html(self.name)
        shown, said = pictures.opening(self.sweeps, example)
        return {
            "canvas": {"data": canvas},
            "facts": facts,
            "loss": pictures.loss(shown, said),
            "acceptance": pictures.acceptance(shown, said),
            "bars": bars,
        }

    def _chosen(self) -> tuple[str, int]:
        return self.settings["matrix"], int(self.settings.get("layer", 0))

    def _sheet(self) -> Sheet | None:
        if self.model is None or not self._stats:
            return None
        return sheet(self.model, *self._chosen(), self._stats, self._first)

    def image(self) -> mask_image.MaskImage | None:
        """The matrix on the canvas; drawn again only where it or its mask changed."""
        shown, masks = self._shown, self.masks
        if shown is not None and shown[0] == self._chosen() and shown[1] is masks:
            return shown[2]
        found = self._sheet()
        if found is None or self.model is None:
            return None
        kept = kept_of(self.model, masks, self.full, *self._chosen())
        if found.values.size == 0:
            kept = np.zeros((0, 0), bool)
        made = pictures.image(found, kept)
        self._shown = (self._chosen(), masks, made)
        return made

    def _looked_at(self) -> tuple[str, str] | None:
        """The selected place of the canvas, in words; worked out where it or its mask changed."""
        key, image, model = (self._spot, self._chosen(), self.masks), self.image(), self.model
        if self._spot is None or self._spot[0] != self._chosen()[0] or image is None:
            return None
        found = self._sheet() if self._spot_said is None or self._spot_said[0] != key else None
        if found is not None and model is not None:
            place = mask_image.block(*self._spot[1:], image.row_edges, image.column_edges)
            kept = kept_of(model, self.masks, self.full, *self._chosen())
            self._spot_said = (key, told(found, kept, *place))
        return self._spot_said[1] if self._spot_said else None

    def _canvas(self) -> dict[str, Any]:
        """The view's data, made once for each image."""
        image = self.image()
        if image is None:
            return {}
        if self._drawn is None or self._drawn[0] is not image:
            self._drawn = (image, mask_image.canvas_data(image))
        return self._drawn[1]

    def _facts(self, now: Mapping[str, Any]) -> str:
        image, layer = self.image(), self._chosen()[1]
        done = self._retrained()
        said = ""
        if done is not None:
            share = done.recovery.trainable / self.model.parameters
            said = (
                f"Retrained {done.recovery.trainable:,} numbers ({share:.2%} of all),"
                f" {done.recovery.steps} steps: loss"
                f" {done.loss_before:.3f} → {done.loss_after:.3f} nats; zeros"
                f" {done.recovery.zeros_before:,} → {done.recovery.zeros_after:,}."
                f" {done.recovery.note}"
            )
        return pictures.facts(
            {
                "note": self.masks.note,
                "matrix": float(np.mean(image.kept)) / 255 if image and image.kept.size else 1.0,
                "layer": self._kept[layer] if layer < len(self._kept) else 1.0,
                "blocks": 1 - (self.sweeps.here.sparsity if self.sweeps.here else 0.0),
                "parameters": self.model.parameters if self.model else 0,
                "cut": self._cut,
                "here": self.sweeps.here,
                "pattern": str(self._pattern()),
                "device": self.model.device if self.model else "cpu",
                "sparse": self._sparse,
                "retrained": said,
                "spot": self._looked_at(),
            }
        )

    def touched(self, key: str) -> None:
        """Settings that change no model only change what is shown."""
        if key == "text":
            self._made = {}
        if key not in form.QUIET:
            super().touched(key)

    def restore(self) -> None:
        """The weights as they were."""
        self._edit.undo()

    # ---- verbs -----------------------------------------------------------------------------------

    def curves(self) -> None:
        """Measure every criterion at several sparsities, in the background."""
        self.worker.ask("sweep", self._sweep)

    def harm(self) -> None:
        """Drop each layer alone and measure."""
        self.change("bars", form.BARS[1])
        self.worker.ask("harm", lambda task: self._swept(task, self._all_layers))

    def retrain(self) -> None:
        """Retrain what is left, in the background; one step of undo.

        Pressed again with the same numbers to train, it goes on.
        """
        self.worker.ask("retrain", self._retrain)

    def save(self) -> None:
        """Write the mask to the folder."""
        self._try(self._save)

    def _save(self) -> None:
        assert self.model is not None  # there is a mask
        folder = Path(self.settings["folder"]).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "mask.safetensors"
        masks = MaskSet(
            self.masks.weights, self.masks.parts, self.model.fingerprint, self.masks.note
        )
        path.write_bytes(Pruned(masks, self.changed).to_bytes())
        self.say(f"Saved {path}; the drafter `pruned` takes it as its mask.")

    def cut(self) -> None:
        """Write what is left as a smaller checkpoint."""
        self.worker.ask("cut", self._cut_out)

    def speed(self) -> None:
        """Measure 2:4 through torch's sparse tensors; a CPU says that it has no such kernel."""
        self.worker.ask("speed", self._speed)

    def _try(self, work: Any) -> bool:
        try:
            with self._lock:
                work()
            self._error = ""
        except (WorkbenchError, OSError) as error:
            self._error = str(error)
        self._mark()
        return not self._error

    def open(self, data: bytes, name: str) -> bool:
        """Take a saved mask; it stands in for the criterion until Undo or Reset."""
        return self._try(lambda: self._open(data, name))

    def _open(self, data: bytes, name: str) -> None:
        made = Pruned.from_bytes(data, name)
        if self.model is not None:
            made.check(self.model)
        self.put("mask", made)
        self.touched("mask")

    # ---- the canvas and the charts ---------------------------------------------------------------

    def handle(self, cell: str, event: Mapping[str, Any]) -> None:
        """A stroke, a place that is looked at, or a click on a layer."""
        if cell == "canvas" and event.get("kind") == "paint":
            self._try(lambda: self._paint(event))
        elif cell == "canvas" and event.get("kind") == "select":
            self._try(lambda: self._select(event))
        elif cell == "bars" and isinstance(event.get("customdata"), int):
            self.change("layer", event["customdata"])

    def _paint(self, event: Mapping[str, Any]) -> None:
        image, (role, layer) = self.image(), self._chosen()
        if image is None or self.model is None:
            raise BadInput("paint: the canvas shows an example; press Measure to load the model")
        blocks = []
        for cell in event.get("cells", ()):
            if len(cell) != 2:
                raise BadInput(f"cells: {cell!r} is not [row, column]")
            row, column = map(int, cell)
            rows, columns = mask_image.block(row, column, image.row_edges, image.column_edges)
            blocks.append((rows.start, rows.stop, columns.start, columns.stop))
        name = role if role in form.ACROSS else matrix_name(self.model, role, layer)
        stroke = Stroke(name, tuple(blocks), bool(event.get("keep")))
        if blocks and self.put("strokes", (*self.strokes, stroke)):
            self.touched("strokes")

    def _select(self, event: Mapping[str, Any]) -> None:
        """Say what stands there; a row of a canvas across the layers is its layer."""
        image, place = self.image(), (event.get("row"), event.get("column"))
        if image is None or not all(type(at) is int for at in place):
            return
        row, column = int(place[0] or 0), int(place[1] or 0)
        rows, _ = mask_image.block(row, column, image.row_edges, image.column_edges)
        self._spot = (self._chosen()[0], row, column)
        if self._chosen()[0] in form.ACROSS:
            self.put("layer", rows.start)
