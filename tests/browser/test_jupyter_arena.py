"""JupyterLab drives the arena: drafters are typed, a sweep is paused, stopped and gone on with."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect
from test_jupyter import open_notebook, run_all

pytestmark = pytest.mark.browser
NOTEBOOK = "arena.ipynb"
CODE = """\
import torch; torch.set_num_threads(1)
from widgets import Arena
short = dict(targets={target!r}, draft="", per_kind=1, new_tokens=8, repeats=3)
lab = Arena(drafters=("prompt_lookup",), folder={folder!r}, tune_folder={tune!r}, **short)
lab"""


def notebook(**names: str) -> str:
    cell = {"cell_type": "code", "source": CODE.format(**names), "metadata": {}, "outputs": []}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [{**cell, "id": "only", "execution_count": None}]
    book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(book)


def typed(lab, place: int, name: str) -> None:
    """A name into the box of the first, second, ... field of several choices."""
    box = lab.get_by_placeholder("add…").nth(place)
    box.click()
    box.press_sequentially(name)
    box.press("Enter")


def row(lab, label: str):
    return lab.locator(".dw-row").filter(has=lab.page.get_by_text(label, exact=True))


def fill(lab, label: str, value: str) -> None:
    box = row(lab, label).locator("input").first
    box.fill(value)
    box.press("Enter")


def press(lab, name: str) -> None:
    lab.get_by_role("button", name=name).click()


def view(lab, name: str) -> None:
    row(lab, "view").locator("select").select_option(label=name)


def bars(lab):
    return lab.locator(".js-plotly-plot").first.locator(".barlayer .point path")


def test_a_person_chooses_measures_and_tunes(open_page, jupyter, checkpoint, shots, tmp_path):
    base, work = jupyter
    target = str(checkpoint("llama", max_position_embeddings=2048))
    names = {"target": target, "folder": str(tmp_path / "sweep"), "tune": str(tmp_path / "tune")}
    (work / NOTEBOOK).write_text(notebook(**names))
    page = open_notebook(open_page, base, NOTEBOOK, height=900)
    run_all(page)
    lab = page.locator(".dw-in-jupyter")
    expect(lab.get_by_text("Recorded example:").first).to_be_visible(timeout=60_000)
    note, error = lab.locator(".dw-note"), lab.locator(".dw-error")

    typed(lab, 0, "rset")
    expect(error).to_contain_text("Did you mean 'rest'?")
    typed(lab, 0, "rest")
    expect(lab.get_by_role("button", name="rest ✕")).to_be_visible()
    typed(lab, 1, "typical")
    expect(note).to_contain_text("5 configurations × 1 prompts × 3 repeats = 15")
    press(lab, "typical ✕")
    expect(note).to_contain_text("3 configurations")
    row(lab, "prompts").locator("select").select_option(label="a JSONL file")
    expect(error).to_contain_text("path is empty")
    row(lab, "prompts").locator("select").select_option(label="held-out: prose")
    fill(lab, "knobs", "policy.depth=2,3")
    expect(note).to_contain_text("5 configurations")
    assert page.locator(".jp-Cell").count() == 1, "letters went to the notebook"
    page.screenshot(path=shots / "jupyter-arena-first.png")

    fill(lab, "new tokens", "300")  # long enough to be paused in the middle
    press(lab, "Start")
    expect(lab.locator(".dw-progress")).to_contain_text("of 15", timeout=60_000)
    press(lab, "Pause")
    expect(lab.locator(".dw-progress")).to_contain_text("paused")
    press(lab, "Stop")  # the one under way may be the first of rest, which reads its texts
    expect(note).to_contain_text(re.compile(r"\d+ of 15 measured, kept in"), timeout=30_000)
    press(lab, "Start")
    expect(note).to_contain_text("15 of 15 measured, kept in", timeout=60_000)
    expect(bars(lab)).to_have_count(5)
    expect(lab.locator("[data-verdict]")).to_contain_text(re.compile("plain|draft"))
    lab.get_by_text("What these numbers are").click()
    expect(lab.get_by_text("drawn again with replacement")).to_be_visible()
    page.screenshot(path=shots / "jupyter-arena.png")

    fill(lab, "new tokens", "16")
    view(lab, "Tuning")
    fill(lab, "trials", "2")
    press(lab, "Start")
    expect(lab.locator("[data-preset]")).to_be_visible(timeout=60_000)
    expect(note).to_contain_text("preset.json")
    view(lab, "Cost of a pass, measured")
    press(lab, "Start")
    expect(lab.get_by_role("button", name="Export")).to_be_enabled(timeout=60_000)
    expect(lab.locator("[data-predicted]")).to_be_visible()
    page.screenshot(path=shots / "jupyter-arena-cost.png")
    assert page.locator(".jp-OutputArea-error, .jp-mod-error").count() == 0
