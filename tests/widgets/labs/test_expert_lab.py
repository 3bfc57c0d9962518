"""The expert lab's controller: selection, interventions, live rules, undo, costs. No browser."""

from __future__ import annotations

import pytest
import torch

from widgets.labs.board_lab import BoardLab
from widgets.labs.experts.controller import ExpertLab
from widgets.labs.experts.pictures import SHOWN
from workbench.core.steering import Intervention
from workbench.models.routers import record_routing

TEXT = "for key in sorted(found):\n    print(key)\n"


def settle(lab: ExpertLab) -> str:
    assert lab.worker.wait(90)
    return lab._error


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from workbench.models.load import load
    from workbench.testing.checkpoints import write_checkpoint

    folder = tmp_path_factory.mktemp("mixture")
    changes = dict(num_experts=8, norm_topk_prob=True, max_position_embeddings=512)
    return load(str(write_checkpoint(folder, "qwen3_moe", **changes)))


@pytest.fixture
def lab(model):
    made = ExpertLab(model, draft="", text=TEXT)
    made.texts = lambda: [TEXT, "import re\n" * 4, "def f(a, b):\n    return a\n" * 40]
    made.warm()
    assert not settle(made)
    yield made
    made.close()


@torch.inference_mode()
def logits(model) -> torch.Tensor:
    ids = torch.tensor([model.encode(TEXT)])
    return model.network(input_ids=ids, use_cache=False).logits


def test_the_grid_is_the_record_of_the_text(lab, model):
    record = record_routing(model, model.encode(TEXT))
    figure = lab.contents()["grid"]
    assert (
        figure["data"][0]["text"][2]
        == [str(expert) for expert in record.layers[2].ranked(0)[0]][:44]
    )
    assert lab.before is not None and lab.now.loss_nats == lab.before.loss_nats
    load = lab.contents()["load"]["data"][0]["z"]
    assert sum(load[0]) == pytest.approx(2)


def test_a_click_selects_a_cell_and_then_an_expert(lab):
    lab.handle("grid", {"kind": "point", "customdata": [1, 5]})
    assert lab.selected == (1, 5)
    assert lab.expert == lab.record.layers[1].ranked(0)[0][5]
    lab.handle("cell", {"kind": "point", "customdata": 4})
    assert lab.expert == 4 and lab.where() == (1, 5)
    for bad in ([9, 0], [0, 999], None, "x", [1]):
        lab.handle("grid", {"customdata": bad})
    assert lab.selected == (1, 5)
    assert "layer 1, token 5" in lab.contents()["facts"]


@pytest.mark.parametrize("verb", ["ban", "force", "weigh"])
def test_an_intervention_changes_the_dial_and_undo_is_exact(lab, model, verb):
    plain, loss = logits(model), lab.now.loss_nats
    lab.change("scope", "everywhere")
    lab.handle("grid", {"customdata": [0, 3]})
    getattr(lab, verb)()
    assert not settle(lab) and lab.now.loss_nats != loss
    expert = lab.expert
    wanted = Intervention(verb, expert, factor=0.5 if verb == "weigh" else 1.0)
    assert lab.interventions == (wanted,) and "data-intervention" in lab.contents()["facts"]
    load = lab.record.layers[0].load[expert]
    if verb != "weigh":
        assert float(load) == (0 if verb == "ban" else 1)
    assert not torch.equal(logits(model), plain)
    lab.undo()
    assert not settle(lab) and torch.equal(logits(model), plain) and lab.now.loss_nats == loss
    lab.redo()
    assert not settle(lab) and not torch.equal(logits(model), plain)
    lab.reset()
    assert not settle(lab) and torch.equal(logits(model), plain)


def test_the_same_verb_again_lifts_it(lab):
    lab.ban()
    lab.ban()
    assert lab.interventions == ()
    lab.weigh()
    lab.change("factor", 2.0)
    lab.weigh()
    assert [one.factor for one in lab.interventions] == [2.0]
    assert not settle(lab)


def test_scopes_name_what_they_say(lab):
    lab.handle("grid", {"customdata": [2, 4]})
    for scope, where in (
        ("this token, this layer", (2, 4)),
        ("this token", (None, 4)),
        ("this layer", (2, None)),
        ("everywhere", (None, None)),
    ):
        lab.change("scope", scope)
        assert lab.where() == where
    lab.change("scope", "this token, this layer")
    before = lab.record
    lab.ban()
    assert not settle(lab)
    changed = (lab.record.layers[2].dense != before.layers[2].dense).any(-1).nonzero().flatten()
    assert changed.tolist() == [4]
    assert lab.record.layers[0].dense.equal(before.layers[0].dense)


def test_every_expert_banned_is_refused_and_the_rest_works_on(lab, model):
    lab.change("scope", "this layer")
    for expert in range(8):
        lab.handle("cell", {"customdata": expert})
        lab.ban()
    assert "all 8 experts of layer 0 are banned" in lab._error
    assert len(lab.interventions) == 7
    settle(lab)
    assert len(lab.record.layers[0].union()) == 1


def test_a_mean_number_of_experts_sets_p(lab, model):
    assert lab.change("router", "top_p") and not settle(lab)
    for wanted in (1.5, 3.0):
        for _ in range(3):  # later layers hear the new rule, so it is found in a few turns
            assert lab.change("mean_experts", wanted) and not settle(lab)
        used = [one.experts_per_token.float() for one in lab.record.layers.values()]
        assert float(torch.cat(used).mean()) == pytest.approx(wanted, abs=0.1)
        assert lab.settings["mean_experts"] == pytest.approx(wanted, abs=0.1)
    assert not lab.change("mean_experts", 99.0) and "must lie in" in lab._error


def test_k_and_top_p_are_live(lab, model):
    assert lab.change("router.top_k.k", 3) and not settle(lab)
    assert lab.record.layers[0].experts_per_token.tolist() == [3] * len(lab.pieces)
    assert lab.change("router", "top_p") and not settle(lab)
    assert any(field.key == "router.top_p.p" for s in lab.sections for field in s.fields)
    few = lab.record.layers[0].experts_per_token.float().mean()
    assert lab.change("router.top_p.p", 0.95) and not settle(lab)
    assert lab.record.layers[0].experts_per_token.float().mean() > few
    assert not lab.change("router.top_p.p", 3.0) and "must lie in" in lab._error
    names = {name for s in lab.sections for f in s.fields for name in (f.knob.choices or ())}
    assert {
        "top_k",
        "recurrent",
    } < names and "expertflow" not in names  # a rule that only observes is no choice


def test_a_recurrent_router_is_refused_where_no_head_fits_and_undone_to_the_bit(lab, model):
    plain = logits(model)
    assert lab.change("router", "top_p") and not settle(lab)
    assert lab.change("router", "recurrent")
    error = settle(lab)
    assert "trained for zoo:moe" in error and "heads=untrained" in error
    assert torch.equal(logits(model), plain) and lab.untouched and lab.record is lab.plain
    assert lab.change("router.recurrent.linear", False)
    assert lab.change("router.recurrent.heads", "untrained") and not settle(lab)
    alone = logits(model)
    assert not torch.equal(alone, plain) and lab.text_loss != lab.plain_loss
    assert not lab.untouched
    lab.handle("cell", {"customdata": lab.record.layers[0].ranked(0)[0][0]})
    lab.change("scope", "everywhere")
    lab.ban()
    assert not settle(lab)
    assert not torch.equal(logits(model), alone)
    assert all(lab.expert not in one.union() for one in lab.record.layers.values())
    lab.undo()
    assert not settle(lab)
    assert torch.equal(logits(model), alone)
    lab.reset()
    assert not settle(lab)
    assert torch.equal(logits(model), plain) and lab.untouched
    assert all("Recurrent" not in type(m).__name__ for m in model.network.modules())


def test_the_embedded_mixture_has_a_recurrent_head():
    from workbench.models.load import load
    from workbench.moe.recurrent import Recurrent

    model = load("zoo:moe")
    plain = logits(model)
    with Recurrent().attach(model):
        trained = logits(model)
    lab = ExpertLab(model, draft="", text=TEXT)
    lab.texts = lambda: [TEXT, "import re\n" * 4]
    assert lab.change("router", "recurrent")
    lab.warm()
    assert not settle(lab)
    assert torch.equal(logits(model), trained) and not torch.equal(trained, plain)
    assert lab.now.loss_nats != lab.before.loss_nats
    lab.undo()
    assert not settle(lab)
    assert torch.equal(logits(model), plain) and lab.now.loss_nats == lab.before.loss_nats
    lab.close()


def test_trees_and_the_cache_are_measured_on_request(lab):
    lab.trees()
    assert not settle(lab)
    assert [one.nodes for one in lab.costs.points] == [1, 2, 4, 8, 16]
    assert lab.settings["show"] == "trees" and "data-cost" in lab.contents()["facts"]
    assert lab.contents()["picture"]["data"][0]["y"] == [one.distinct for one in lab.costs.points]
    lab.cache()
    assert not settle(lab)
    assert lab.costs.report.capacity == 4 and "waiting, projected" in lab.contents()["facts"]
    moved = lab.costs.report.bytes_moved
    assert lab.change("router.expertflow.capacity", 8) and not settle(lab)
    assert lab.costs.report.capacity == 8 and lab.costs.report.bytes_moved != moved
    lab.handle("grid", {"customdata": [0, 0]})
    lab.ban()
    assert not settle(lab) and not lab.costs.points and not lab.costs.reports  # other routes now


def test_every_picture_of_a_lab_and_its_static_twin(lab):
    for show in SHOWN:
        assert lab.change("show", show), show
        shown = lab.contents()
        assert set(shown) >= {"head", "progress", "error", *(c.name for b in lab.bands for c in b)}
        assert shown["picture"]["data"] or "press" in str(shown["picture"]["layout"])
    assert "loss of this text" in BoardLab(lab).twin_html()


def test_another_text_and_no_text(lab):
    assert lab.change("text", "import json") and not settle(lab)
    assert "".join(lab.pieces) == "import json"
    lab.change("text", "")
    assert "empty" in settle(lab)
    assert lab.change("text", TEXT) and not settle(lab)


def test_a_dense_model_is_refused_in_the_lab_with_what_to_do(loaded):
    made = ExpertLab(loaded("llama"), draft="")
    for _ in range(2):
        made.measure()
        assert "no experts to route to" in settle(made)
    assert "dense model" in made.contents()["facts"] and "zoo:moe" in made.contents()["facts"]
    made.ban()
    assert "no experts; open the lab on a mixture" in made._error
    made.close()


def test_it_opens_on_a_recorded_routing_that_the_first_measurement_replaces(lab):
    made = ExpertLab("zoo:moe")
    shown = made.contents()
    assert "recorded example: zoo:moe" in shown["facts"] and "loss of this text" in shown["facts"]
    for cell in ("grid", "cell", "picture", "load"):
        assert shown[cell]["data"], cell
    made.ban()
    assert "press Measure" in made._error
    made.close()
    assert "recorded" not in str(lab.contents())


def test_a_picture_and_a_scope_are_no_steps_of_undo(lab):
    assert lab.change("show", "entropy") and lab.change("scope", "everywhere")
    assert not lab.history.can_undo
    lab.ban()
    assert not settle(lab)
    lab.trees()
    assert not settle(lab) and lab.settings["show"] == "trees"
    lab.undo()
    assert not settle(lab) and lab.interventions == () and not lab.history.can_undo
    assert lab.settings["show"] == "trees"


def test_closing_gives_the_model_back(lab, model):
    plain = logits(model)
    lab.change("scope", "everywhere")
    lab.ban()
    settle(lab)
    assert not torch.equal(logits(model), plain)
    lab.close()
    assert torch.equal(logits(model), plain)
