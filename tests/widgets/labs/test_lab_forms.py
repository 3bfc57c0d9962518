"""Forms come from knobs: the right control, the whole help, and both hosts draw every method."""

from __future__ import annotations

import pytest

from widgets.controls.form import Field, fields_of, is_stacked
from widgets.controls.ipywidgets_form import Form as JupyterForm
from widgets.controls.ipywidgets_form import Row as JupyterRow
from widgets.controls.panel_form import Form as PanelForm
from widgets.controls.panel_form import Row as PanelRow
from widgets.labs.decode.settings import all_fields, first_settings, sections, settings_of
from workbench.core.errors import BadKnob
from workbench.core.method import Knob, methods


@pytest.mark.parametrize(
    ("knob", "control"),
    [
        (Knob("k", "int", 4, low=1, high=16), "slider"),
        (Knob("k", "int", 4, low=1, high=100_000), "number"),
        (Knob("k", "int", 4), "number"),
        (Knob("t", "float", 0.5, low=0.0, high=1.0), "slider"),
        (Knob("b", "bool", True), "switch"),
        (Knob("c", "choice", "a", choices=("a", "b")), "choice"),
        (Knob("s", "text", ""), "line"),
    ],
)
def test_the_control_follows_from_the_knob(knob, control):
    assert Field("x", knob, "owner").control == control


def test_a_choice_whose_words_would_be_cut_stands_under_its_name():
    field = Field("c", Knob("c", "choice", "a", choices=("a", "b")), "owner")
    assert not is_stacked(field, {}) and is_stacked(field, {"b": "without replacement"})
    for host in (JupyterRow, PanelRow):
        host(field, "a", lambda *_: None, {"b": "without replacement"}).put("b")


def test_help_has_unit_range_and_default():
    field = Field("x", Knob("k", "int", 4, low=1, high=16, unit="tokens", help="Depth."), "m")
    assert field.help == "Depth. 1 to 16 tokens. Default 4."
    with pytest.raises(BadKnob, match=r"m\.k=99.*\[1, 16\] tokens"):
        field.check(99)


@pytest.mark.parametrize(
    ("step", "value", "shown"), [(0.05, 0.8, "0.80"), (0.1, 1.0, "1.0"), (0.001, 0.5, "0.500")]
)
def test_a_readout_shows_the_decimals_of_its_step(step, value, shown):
    field = Field("t", Knob("t", "float", 0.0, low=0.0, high=1.0, step=step), "m")
    assert field.show(value) == shown


def _values(form):
    return {row.field.key: row.control.value for row in form._rows}


@pytest.mark.parametrize("maker", [JupyterForm, PanelForm])
@pytest.mark.parametrize("card", methods(), ids=lambda card: f"{card.family}-{card.name}")
def test_every_method_is_drawn_and_read_back(maker, card):
    heard, fields = [], fields_of(card)
    settings = {field.key: field.knob.default for field in fields}
    form = maker(lambda key, value: heard.append((key, value)))
    form.show(fields, settings)
    assert _values(form) == {field.key: settings[field.key] for field in fields}
    assert heard == []
    for row in form._rows:
        knob = row.field.knob
        new = {
            "choice": lambda k: k.choices[-1],
            "method": lambda k: k.options[-1],
            "bool": lambda k: not k.default,
            "text": lambda k: "x",
        }.get(knob.kind, lambda k: k.low)(knob)
        row.control.value = new
        if new != knob.default:
            assert heard[-1] == (row.field.key, new)
    form.show(fields, settings)
    assert _values(form) == {field.key: settings[field.key] for field in fields}


def test_sections_show_the_draft_model_only_where_one_is_needed():
    def keys(name):
        found = sections(first_settings({"drafter": name}))
        return {field.key for field in found[0].fields}

    assert "draft" in keys("draft_model") and "draft" not in keys("token_recycling")


def test_a_trace_of_unknown_methods_still_gives_settings(trace):
    from workbench.core.trace import Method

    foreign = trace.with_(drafter=Method("from_another_package", {"z": 1}))
    settings = settings_of(foreign)
    assert settings["drafter"] in all_fields()["drafter"].knob.choices
    assert settings["policy.fixed.depth"] == 3


def test_the_cell_magic_reads_its_line():
    from widgets.magics import read_line
    from workbench.core.errors import BadInput

    given = read_line("--drafter token_recycling --set drafter.k=6 --temperature 0.8")
    assert given == {
        "model": "zoo:target",
        "drafter": "token_recycling",
        "temperature": 0.8,
        "drafter.token_recycling.k": 6,
    }
    for line in ("--nonsense", "--set drafter.k", "--set drafter.kk=3", "--temperature hot"):
        with pytest.raises(BadInput):
            read_line(line)
