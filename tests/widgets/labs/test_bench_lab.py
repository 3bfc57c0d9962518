"""What the three benches share: applying settings, dials, undo, bad input."""

from __future__ import annotations

import itertools

import pytest
import torch

from widgets.controls.form import Field
from widgets.labs.bench import DIALS, Bench
from widgets.labs.board import Section
from widgets.labs.dials import dials_html
from workbench.core.errors import BadInput
from workbench.core.method import Knob
from workbench.engine.dials import Dials
from workbench.models.load import load
from workbench.testing.checkpoints import write_checkpoint

GAIN = Knob("gain", "float", 1.0, low=0.0, high=4.0, step=0.1, help="Of the last layer.")
EXTRA = Knob("extra", "int", 2, low=1, high=4, help="Offered once gain is above 2.")
SHOWN = Knob("shown", "choice", "loss", choices=("loss", "size"), help="What is drawn.")


class Louder(Bench):
    """Scales one matrix; from the untouched weights every time."""

    title = "Louder"
    bands = ((DIALS,),)
    looks = frozenset({"shown"})
    refused = 3.9  # a gain that apply finds wrong

    def forms(self):
        knobs = [SHOWN, GAIN, EXTRA] if self.value("gain", 1.0) > 2 else [SHOWN, GAIN]
        return (Section("Loudness", tuple(Field(k.name, k, "lab") for k in knobs)),)

    def prepared(self, task):
        self.weight = self.model.anatomy.layers[-1].mlp.down_proj.weight
        self.first = self.weight.clone()

    def apply(self, task):
        self.weight.copy_(self.first)
        if self.settings["gain"] == self.refused:
            raise BadInput(f"gain={self.refused}: too loud; turn it down")
        self.weight.copy_(self.first * self.settings["gain"])

    def texts(self):
        return ["def f(x): return x\n" * 4, "class A: pass\n" * 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_checkpoint(tmp_path_factory.mktemp("louder"), "llama"))


@pytest.fixture
def bench(folder):
    made = Louder(folder, draft="")
    made.history._clock = itertools.count().__next__  # no two changes fall into one step of undo
    made.warm()
    assert made.worker.wait(60), made.status
    assert made._error == ""
    yield made
    made.close()


def settled(bench) -> None:
    assert bench.worker.wait(60) and bench._error == ""


def test_a_change_moves_the_dials_and_undo_is_bit_exact(bench):
    first = bench.before
    assert bench.now.loss_nats == first.loss_nats
    assert bench.change("gain", 3.0)
    settled(bench)
    assert bench.now.loss_nats != first.loss_nats and bench.before == first
    assert not torch.equal(bench.weight, bench.first)
    bench.undo()
    settled(bench)
    assert bench.now.loss_nats == first.loss_nats and torch.equal(bench.weight, bench.first)
    bench.redo()
    settled(bench)
    assert bench.settings["gain"] == 3.0 and bench.now.loss_nats != first.loss_nats
    bench.reset()
    settled(bench)
    assert torch.equal(bench.weight, bench.first)


def test_forms_follow_the_settings(bench):
    assert set(bench.settings) == {"shown", "gain"}
    bench.change("gain", 3.0)
    assert bench.settings == {"shown": "loss", "gain": 3.0, "extra": 2}
    assert bench.change("extra", 4)
    bench.change("gain", 1.0)
    assert [f.key for s in bench.sections for f in s.fields] == ["shown", "gain"]


def test_what_is_looked_at_is_no_step_of_undo(bench):
    assert bench.change("shown", "size") and not bench.history.can_undo
    bench.change("gain", 3.0)
    settled(bench)
    bench.undo()
    settled(bench)
    assert bench.settings == {"shown": "size", "gain": 1.0}
    bench.reset()
    assert bench.settings["shown"] == "size"


def test_what_cannot_be_applied_is_said_and_the_dials_tell_what_is_left(bench):
    bench.change("gain", 2.0)
    settled(bench)
    assert bench.now.loss_nats != bench.before.loss_nats
    bench.say("a sentence about it")
    bench.change("gain", Louder.refused)
    assert bench.worker.wait(60) and "turn it down" in bench.contents()["error"]
    assert bench.now.loss_nats == bench.before.loss_nats, "the model is untouched, and is read so"
    assert "a sentence" not in bench.contents()["dials"], "it was about the state before"
    bench.undo()
    settled(bench)
    assert bench.now.loss_nats != bench.before.loss_nats


def test_an_untouched_model_is_as_before(bench):
    assert bench.now is bench.before, "one reading, not two"
    bench.measure()
    settled(bench)
    assert bench.now is bench.before and "before" not in dials_html(bench.now, None)
    assert dials_html(bench.now, bench.before).count("as before") == 3  # no draft, no acceptance


def test_a_loading_that_was_refused_is_begun_again(folder):
    class Fussy(Louder):
        def prepared(self, task):
            raise BadInput("model: not this one; open another")

    bench = Fussy(folder, draft="")
    for _ in range(2):
        bench.measure()
        assert bench.worker.wait(60) and "open another" in bench.contents()["error"]
    bench.close()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("gain", 9.0, "must lie in"), ("gain", "loud", "expected a number"), ("volume", 1, "no such")],
)
def test_bad_values_are_refused_and_change_nothing(bench, key, value, says):
    before = dict(bench.settings)
    assert not bench.change(key, value)
    assert says in bench.contents()["error"] and dict(bench.settings) == before
    assert bench.change("gain", 1.1) and bench.contents()["error"] == ""


def test_a_missing_checkpoint_is_said_in_the_lab():
    bench = Louder("zoo:nothing", draft="")
    bench.measure()
    assert bench.worker.wait(30)
    assert "not an embedded model" in bench.contents()["error"]
    bench.close()


def test_a_draft_with_another_tokenizer_is_refused(folder, tmp_path):
    other = load(str(write_checkpoint(tmp_path, "llama", shift=1)))
    bench = Louder(folder, draft=other)
    bench.warm()
    assert bench.worker.wait(60)
    assert "different tokenizers" in bench.contents()["error"]
    bench.close()


def test_verbs_are_offered_when_they_can_do_something(bench):
    assert bench.verbs() == {"reset", "measure"}
    bench.change("gain", 2.0)
    settled(bench)
    assert bench.verbs() == {"reset", "measure", "undo"}


NOW, BEFORE = Dials(2.4, 0.4, 0.5, 2.0, 100.0, 2000), Dials(2.5, 0.4, 0.6, 2.0, 101.0, 1000)


def test_dials_say_which_way_is_good():
    text = dials_html(NOW, BEFORE)
    assert "▼ -0.100 · better" in text and "▼ -0.100 · worse" in text
    assert "▲ 2.00× · worse" in text and text.count("as before") == 1


def test_dials_without_numbers_say_so():
    assert dials_html(None, None).count("not measured yet") == 4
    quiet = Dials(2.5, 0.4, None, None, None, 1000)
    assert dials_html(quiet, quiet).count("–") == 2
    assert "no draft model" in dials_html(quiet, quiet)


def test_the_dials_say_when_the_compiled_pass_is_lost():
    compiled = Dials(2.5, 0.4, 0.6, 2.0, 300.0, 1000, compiled=True)
    on_torch = Dials(2.4, 0.4, 0.6, 2.0, 100.0, 1000, compiled=False)
    assert "outside the compiled pass" in dials_html(on_torch, compiled)
    assert "outside the compiled pass" not in dials_html(compiled, on_torch)
    assert "outside the compiled pass" not in dials_html(compiled, compiled)
    assert "outside the compiled pass" not in dials_html(None, compiled)
