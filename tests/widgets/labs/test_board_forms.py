"""A board's form while its model loads: what somebody holds stays, and what was chosen counts."""

from __future__ import annotations

import pytest
from bare_board import BareBoard

from widgets.controls.form import Field, Many
from widgets.labs.board import Section
from widgets.labs.board_jupyter import BoardJupyter
from widgets.labs.board_panel import BoardPanel
from workbench.core.method import Knob

HOSTS = pytest.mark.parametrize("host", [BoardPanel, BoardJupyter])


def choice(name: str, *choices: str) -> Field:
    return Field(name, Knob(name, "choice", choices[0], choices=choices, help="Which."), "lab")


def number(name: str, high: int) -> Field:
    return Field(name, Knob(name, "int", 1, 0, high, help="How many."), "lab")


WANTED = choice("matrix", "whole", "layers", "parts")
LOADING = (Section("What", (WANTED, number("layer", 1))), Section("Where", (choice("to", "a"),)))
LOADED = (
    Section("What", (WANTED, number("layer", 7), number("head", 3))),
    Section("Where", (choice("to", "a", "b"),)),
    Section("More", (choice("from", "c"),)),
)


class LoadingBoard(BareBoard):
    """A board whose fields change with the model."""

    def __init__(self):
        values = {"matrix": "whole", "layer": 1, "head": 1, "to": "a", "from": "c", "some": ("x",)}
        super().__init__(sections=LOADING, settings=values, told=[])

    def change(self, key, value):
        self.told.append((key, value))
        return super().change(key, value)


@pytest.fixture
def shown():
    made = []

    def show(host):
        made.append(host(LoadingBoard()))
        return made[-1].board, made[-1]

    yield show
    for view in made:
        view.close()


def controls(view) -> dict:
    return {row.field.key: row.control for row in view.form_rows.rows}


@HOSTS
def test_controls_stay_when_the_model_loads_and_new_ones_join(shown, host):
    board, view = shown(host)
    before = controls(view)
    board.sections = LOADED
    view.flush()
    after = controls(view)
    assert list(after) == ["matrix", "layer", "head", "to", "from"]
    assert {key: after[key] for key in before} == before, "put in anew"
    top = "end" if host is BoardPanel else "max"
    assert getattr(after["layer"], top) == 7, "the range is the new one"
    assert list(after["to"].options)[-1] in ("b", ("b", "b"))
    assert board.told == [], "nobody chose anything"
    board.sections = LOADING
    view.flush()
    assert list(controls(view)) == ["matrix", "layer", "to"]
    assert getattr(after["layer"], top) == 1


@HOSTS
def test_a_choice_in_the_moment_of_loading_counts(shown, host):
    board, view = shown(host)
    held = controls(view)
    board.sections = LOADED  # the model is there, the page not drawn yet
    held["matrix"].value = "layers"
    view.flush()
    held["layer"].value = 0  # from a page that shows the old range
    view.flush()
    assert board.told == [("matrix", "layers"), ("layer", 0)]
    assert controls(view)["matrix"] is held["matrix"]
    assert controls(view)["matrix"].value == "layers" and controls(view)["layer"].value == 0


@HOSTS
def test_a_value_that_left_its_range_or_choices_is_what_the_board_says(shown, host):
    board, view = shown(host)
    board.sections = LOADED
    view.flush()
    controls(view)["layer"].value = 6
    controls(view)["to"].value = "b"
    board.told.clear()
    board.settings |= {"layer": 1, "to": "a"}
    board.sections = LOADING
    view.flush()
    now = controls(view)
    assert (now["layer"].value, now["to"].value) == (1, "a")
    assert board.settings["layer"] == 1 and board.settings["to"] == "a"
    assert all(board.settings[key] == value for key, value in board.told)


@HOSTS
def test_a_new_choice_that_is_chosen_at_once_is_shown(shown, host):
    board, view = shown(host)
    held = controls(view)
    board.settings |= {"to": "b", "layer": 6}  # as an adapter is that was just trained
    board.sections = LOADED
    view.flush()
    assert controls(view)["to"] is held["to"] and held["to"].value == "b"
    assert controls(view)["layer"].value == 6
    assert set(board.told) <= {("to", "b"), ("layer", 6)}, "what the board says already"


@HOSTS
def test_another_kind_of_control_is_made_anew(shown, host):
    board, view = shown(host)
    old = controls(view)["layer"]
    real = Field("layer", Knob("layer", "float", 1.0, 0.0, 2.0, 0.5, help="How much."), "lab")
    board.sections = (Section("What", (WANTED, real)),)
    view.flush()
    assert controls(view)["layer"] is not old and controls(view)["layer"].step == 0.5


@HOSTS
def test_several_choices_grow_where_they_are_or_are_made_anew(shown, host):
    board, view = shown(host)
    for names in (("x", "y"), ("w", "x", "y", "z")):
        knob = Knob("some", "choice", "x", choices=names, help="Which.")
        board.sections = (Section("What", (WANTED, Many("some", knob, "lab"))),)
        view.flush()
        some = controls(view)["some"]
        offered = some.options if host is BoardPanel else [*some.value, *some.box.options]
        assert set(offered) == set(names) and list(some.value) == ["x"]


def test_in_jupyter_a_list_that_was_not_merely_added_to_is_a_new_control(shown):
    board, view = shown(BoardJupyter)
    held = controls(view)
    board.sections = (
        Section("What", (choice("matrix", "q", "whole", "layers"), LOADING[0].fields[1])),
    )
    view.flush()
    now = controls(view)
    assert now["matrix"] is not held["matrix"], "place 1 on its way would be another choice now"
    assert now["layer"] is held["layer"]
