"""Where drafts stand, in the arena: a field where there is a choice, cells, and what it took."""

from __future__ import annotations

from html import unescape

import pytest

from widgets.labs.arena import form, plan, screen, tables
from widgets.labs.arena.recorded import recording
from workbench.core.errors import BadKnob


@pytest.fixture
def two_devices(monkeypatch):
    for module in (form, screen):
        monkeypatch.setattr(module, "device_names", lambda: ("cpu", "cuda:0"))


def fields(lab) -> set[str]:
    return {field.key for section in lab.sections for field in section.fields}


def test_one_device_has_no_field(make):
    lab = make()
    for show in form.SHOWN:
        lab.change("show", show)
        assert "draft_on" not in fields(lab)
    assert plan.draft_devices(lab.settings) == ("",)


def test_two_devices_are_two_cells(make, two_devices):
    lab = make(drafters=("draft_model",), draft_on=(form.WITH, "cpu"))
    assert "draft_on" in fields(lab)
    cells, _ = plan.grid(lab.settings).expanded()
    assert [cell.draft_device for cell in cells] == ["", "", "cpu"]
    search = plan.search({**lab.settings, "draft_on": ("cuda:0", "cpu")})
    assert search.draft_device == "cuda:0"
    assert "--draft-device cuda:0" in plan.tune_command(search, "x")
    with pytest.raises(BadKnob, match="cuda:7"):
        form.checked({"draft_on": ("cuda:7",)})
    lab.change("draft_on", ("cuda:0",))
    lab.undo()
    assert lab.settings["draft_on"] == (form.WITH, "cpu")


def test_the_prediction_says_where_the_control_is(make, monkeypatch):
    lab = make(show="elsewhere", placement=form.APART)
    assert "this one has the CPU only" in unescape(lab.contents()["detail"])
    monkeypatch.setattr(screen, "device_names", lambda: ("cpu", "cuda:0"))
    assert "This machine has cpu, cuda:0: the field “draft on”" in lab.contents()["detail"]
    lab.change("placement", form.BESIDE)
    assert "draft on" not in lab.contents()["detail"]


def test_a_cell_tells_what_crossed_where_something_did():
    results = recording().results
    cell = results.table[0]["cell"]
    assert "between devices" not in tables.cell(results, cell)
    results.row(cell).update(transfer_ms_per_round=0.31, transfer_bytes_per_round=24_600.0)
    try:
        told = tables.cell(results, cell)
    finally:
        for key in ("transfer_ms_per_round", "transfer_bytes_per_round"):
            del results.row(cell)[key]
    assert "0.31 ms a round" in told and "24,600 a round" in told
