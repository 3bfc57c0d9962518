"""The pruning lab's controller on a tiny checkpoint: criteria, brush, files, undo."""

from __future__ import annotations

import pytest
import torch
from tiny_pruning import TinyLab, same, settled, weights

from widgets.labs.board_lab import BoardLab
from widgets.labs.pruning.controller import PruningLab
from workbench.core.errors import BadInput
from workbench.core.masks import MaskSet
from workbench.models.load import load
from workbench.testing.checkpoints import write_checkpoint


@pytest.fixture
def lab(pruning_lab):
    return pruning_lab


def test_a_ratio_moves_the_dials_and_reset_is_bit_exact(lab):
    first = weights(lab)
    assert lab.now.loss_nats == lab.before.loss_nats and lab.sweeps.here.acceptance > 0.999
    assert lab.change("ratio", 0.5)
    settled(lab)
    assert lab.now.loss_nats != lab.before.loss_nats and lab.full.density == pytest.approx(0.5)
    assert lab.sweeps.here.acceptance < 0.999 and "magnitude, row" in lab.contents()["facts"]
    pruned = weights(lab)
    lab.undo()
    settled(lab)
    assert same(weights(lab), first) and lab.now.loss_nats == lab.before.loss_nats
    lab.redo()
    settled(lab)
    assert same(weights(lab), pruned)
    lab.reset()
    settled(lab)
    assert same(weights(lab), first)


def test_a_layer_has_a_ratio_of_its_own(lab):
    lab.change("ratio", 0.5)
    lab.change("layer", 1)
    assert lab.settings["layer_ratio"] == 0.5  # as all others until it is set
    form_before = lab.sections
    assert lab.change("layer_ratio", 0.0)
    settled(lab)
    lab.change("ratio", 0.45)
    lab.change("ratio", 0.5)
    lab.change("layer", 2)
    assert lab.settings["layer_ratio"] == 0.5 and lab.sections == form_before
    lab.change("layer", 1)
    assert lab.settings["layer_ratio"] == 0.0
    settled(lab)
    assert lab._kept == pytest.approx([0.5, 1.0, 0.5])
    assert not lab.change("ratio", 1.0) and "0.95" in lab.contents()["error"]


@pytest.mark.parametrize("name", ["wanda", "sparsegpt", "cfsp", "heads", "layers"])
def test_every_criterion_runs_and_can_be_taken_back(lab, name):
    first = weights(lab)
    lab.change("pruner", name)
    lab.change("ratio", 0.5)
    settled(lab)
    assert not same(weights(lab), first)
    assert ("cut" in lab.verbs()) == (name in ("cfsp", "heads", "layers"))
    lab.reset()
    settled(lab)
    assert same(weights(lab), first)


def test_painting_prunes_restores_and_is_undone(lab):
    first, name = weights(lab), "model.layers.0.self_attn.q_proj"
    assert lab.settings["matrix"] == "q_proj" and lab.image().values.shape == (64, 64)
    lab.handle("canvas", {"kind": "paint", "cells": [[0, 0], [3, 5]], "keep": False})
    settled(lab)
    weight = lab.model.network.get_parameter(f"{name}.weight")
    assert weight[0, 0] == 0 == weight[3, 5] and (weight == 0).sum() == 2
    assert lab.contents()["canvas"]["data"]["kept"].count(0) == 2
    assert lab.now.loss_nats != lab.before.loss_nats
    lab.handle("canvas", {"kind": "paint", "cells": [[3, 5]], "keep": True})
    settled(lab)
    assert weight[3, 5] == first[1][3, 5] != 0 and (weight == 0).sum() == 1
    lab.reset()
    settled(lab)
    assert same(weights(lab), first)


def test_a_stroke_over_neurons_heads_and_layers(lab):
    for where, cells in (("neurons", [[1, 4]]), ("groups", [[2, 1]]), ("layers", [[0, 0]])):
        lab.change("matrix", where)
        lab.handle("canvas", {"kind": "paint", "cells": cells, "keep": False})
        settled(lab)
    parts = lab.masks.parts
    assert parts["neurons.1"].tolist().index(False) == 4 and parts["groups.2"].tolist() == [1, 0]
    assert parts["layers"].tolist() == [False, True, True] and lab._kept[0] == 0
    assert lab.model.anatomy.layers[1].mlp.up_proj.weight[4].abs().sum() == 0


def test_foreign_events_change_nothing(lab):
    for event in ({}, {"kind": "paint", "cells": [[0]]}, {"kind": "paint", "cells": [[99, 0]]}):
        lab.handle("canvas", event)
    lab.handle("bars", {"customdata": "x"})
    assert lab.strokes == ()


def test_masks_are_saved_opened_and_refused(lab, tmp_path):
    lab.change("folder", str(tmp_path / "out"))
    lab.change("ratio", 0.3)
    settled(lab)
    lab.save()
    data = (tmp_path / "out" / "mask.safetensors").read_bytes()
    assert MaskSet.from_bytes(data) == lab.masks
    loss = lab.now.loss_nats
    lab.reset()
    settled(lab)
    assert lab.open(data, "mask.safetensors")
    settled(lab)
    assert lab.now.loss_nats == loss
    other = MaskSet({"model.layers.0.self_attn.q_proj": torch.ones(3, 3, dtype=torch.bool)})
    assert not lab.open(other.to_bytes(), "x") and "3x3" in lab.contents()["error"]
    assert not lab.open(b"nothing", "x") and "is no saved mask" in lab.contents()["error"]


def test_corrected_and_retrained_weights_are_saved_with_the_mask(lab, tmp_path):
    lab.change("folder", str(tmp_path))
    lab.change("pruner", "sparsegpt")
    lab.change("ratio", 0.6)
    settled(lab)
    for retrained in (False, True):
        if retrained:
            lab.change("steps", 10)
            lab.retrain()
            settled(lab)
        kept, loss = weights(lab), lab.now.loss_nats
        lab.save()
        data = (tmp_path / "mask.safetensors").read_bytes()
        with pytest.raises(BadInput, match="corrected weights"):
            MaskSet.from_bytes(data)  # the mask alone would be another model
        assert lab.open(data, "mask.safetensors")
        settled(lab)
        assert same(weights(lab), kept) and lab.now.loss_nats == loss
        lab.undo()
        settled(lab)


def test_what_is_left_is_cut_out(lab, tmp_path):
    lab.change("folder", str(tmp_path))
    lab.change("pruner", "cfsp")
    lab.change("ratio", 0.5)
    settled(lab)
    lab.cut()
    settled(lab)
    small = load(str(tmp_path / "checkpoint"))
    assert small.parameters == lab._cut < lab.model.parameters
    assert (
        "checkpoint" in lab.contents()["dials"] and "of the whole model" in lab.contents()["dials"]
    )


def test_a_cpu_says_that_two_of_four_is_no_faster(lab):
    lab.change("pattern.weights", "2:4")
    settled(lab)
    assert "no speed-up exists here" in lab.contents()["facts"] and "speed" in lab.verbs()
    lab.speed()
    assert lab.worker.wait(60) and "no fast kernel on a CPU" in lab.contents()["error"]


def test_calibration_text_of_ones_own(lab, tmp_path):
    lab.change("pruner", "wanda")
    lab.change("ratio", 0.5)
    settled(lab)
    for name, text in (("empty.txt", ""), ("line.txt", "x = 1")):
        (tmp_path / name).write_text(text)
        lab.change("text", str(tmp_path / name))
        assert lab.worker.wait(60) and "calibration text" in lab.contents()["error"]
    lab.change("text", str(tmp_path / "missing.txt"))
    assert lab.worker.wait(60) and "no such file" in lab.contents()["error"]
    (tmp_path / "good.txt").write_text("value = [x for x in range(10)]\n" * 80)
    lab.change("text", str(tmp_path / "good.txt"))
    settled(lab)
    assert lab.full.density == pytest.approx(0.5)


def test_n_of_m_says_itself_how_much_stays(lab):
    keys = {f.key for s in lab.sections for f in s.fields}
    assert {"ratio", "layer_ratio"} <= keys and "stays" not in keys
    lab.change("pattern.weights", "1:4")
    settled(lab)
    fields = {f.key: f for s in lab.sections for f in s.fields}
    assert fields["stays"].knob.default == "25%, 1 of every 4" and "ratio" not in fields
    assert "layer_ratio" not in fields and lab.full.density == pytest.approx(0.25)
    lab.change("pattern.weights", "row")
    settled(lab)
    assert lab.full.density == 1.0 and lab.settings["ratio"] == 0.0


def test_a_place_that_is_looked_at_is_told(lab):
    weight = float(lab.model.network.get_parameter("model.layers.0.self_attn.q_proj.weight")[3, 5])
    lab.handle("canvas", {"kind": "select", "row": 3, "column": 5})
    facts = lab.contents()["facts"]
    assert "output 3, input 5" in facts and f"{weight:.3g}" in facts and "kept" in facts
    lab.handle("canvas", {"kind": "paint", "cells": [[3, 5]], "keep": False})
    settled(lab)
    assert "‖x‖" in lab.contents()["facts"] and "pruned</td>" in lab.contents()["facts"]
    lab.change("matrix", "neurons")
    lab.handle("canvas", {"kind": "select", "row": 2, "column": 7})
    assert lab.settings["layer"] == 2 and "layer 2, neuron 7" in lab.contents()["facts"]
    for bad in ({"row": 99, "column": 0}, {"row": "x"}, {"row": 1.5, "column": 0}, {}):
        lab.handle("canvas", {"kind": "select", **bad})
    assert "layer 2, neuron 7" in lab.contents()["facts"]
    lab.change("matrix", "layers")
    assert "neuron" not in lab.contents()["facts"]


def test_it_opens_on_a_recorded_example_until_there_is_a_model(lab):
    made = PruningLab("zoo:draft", draft="")
    shown = made.contents()
    assert "recorded example" in shown["facts"] and "Measure loads zoo:draft" in shown["facts"]
    data = shown["canvas"]["data"]
    assert data["rows"] == 64 and "recorded example" in data["title"] and min(data["kept"]) == 255
    for cell in ("loss", "acceptance", "bars"):
        assert shown[cell]["data"] and "recorded example" in str(shown[cell]["layout"]), cell
    made.handle("canvas", {"kind": "paint", "cells": [[0, 0]], "keep": False})
    assert "press Measure" in made.contents()["error"] and not made.strokes
    made.close()
    shown = lab.contents()
    assert "recorded" not in str((shown["facts"], shown["bars"], shown["canvas"]))
    assert "recorded example" in str(shown["loss"]["layout"]), "until Curves is pressed"


def test_a_loaded_model_is_given_back_and_a_mixture_can_be_pruned(tmp_path):
    model = load(str(write_checkpoint(tmp_path, "mixtral")))
    first = [p.clone() for p in model.network.parameters()]
    lab = TinyLab(model, draft="")
    lab.change("pruner", "wanda")
    lab.change("ratio", 0.5)
    lab.measure()
    settled(lab)
    assert not same(list(model.network.parameters()), first)
    assert "experts" in "".join(lab.masks.weights)
    lab.change("pruner", "cfsp")
    assert lab.worker.wait(60) and "gated MLP" in lab.contents()["error"]
    assert lab.now.loss_nats == lab.before.loss_nats and lab._kept == [1.0] * 3
    assert same(list(model.network.parameters()), first), "what cannot be pruned is whole"
    shown = next(f.knob for s in lab.forms() for f in s.fields if f.key == "matrix")
    assert "neurons" not in shown.choices and "groups" in shown.choices
    lab.change("pruner", "heads")
    settled(lab)
    assert "cut" in lab.verbs() and lab.full.density == pytest.approx(0.5)
    lab.close()
    assert same(list(model.network.parameters()), first)


def test_a_notebook_shows_widgets_and_a_page_without_a_kernel_shows_text():
    lab = BoardLab(PruningLab())
    try:
        bundle, _ = lab._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert "show a recorded example" in bundle["text/html"]
    finally:
        lab.close()
