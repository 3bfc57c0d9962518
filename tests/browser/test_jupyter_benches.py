"""JupyterLab shows the three benches on foreign checkpoints; one gesture in each moves a dial."""

from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import Page, expect
from test_jupyter import open_notebook, run_all

pytestmark = pytest.mark.browser
NOTEBOOK = "benches.ipynb"
LABS = 3
LOSS = "[data-dials] .dw-dial:nth-child(1) .dw-big"
ACCEPTANCE = "[data-dials] .dw-dial:nth-child(2) .dw-big"
SLIDER = ".dw-row:has(:text-is('{}')) .noUi-handle"
COLOURED = """c => { const d = c.getContext("2d").getImageData(0, 0, c.width, 40).data;
  return d.some((v, i) => i % 4 === 0 && v !== d[i + 2]); }"""
CELLS = """\
import torch; torch.set_num_threads(1)
from widgets import AdapterLab, ExpertLab, PruningLab
adapters = AdapterLab({llama!r}, draft={draft!r}, measure_steps=2)
short = {{"data": "folder", "folder": {texts!r}, "steps": 4, "rows": 2}}
[adapters.set(key, value) for key, value in short.items()]
adapters
---
PruningLab({llama!r}, draft={draft!r})
---
ExpertLab({mixtral!r}, draft={draft!r})"""


def notebook(**names: str) -> str:
    """The text of a notebook that shows the labs."""
    cells = [
        {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "id": f"cell-{n}"}
        | {"execution_count": None}
        for n, source in enumerate(CELLS.format(**names).split("\n---\n"))
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4}
    return json.dumps(book | {"nbformat_minor": 5})


@pytest.fixture(scope="module")
def names(checkpoint, text_folder):
    room = {"max_position_embeddings": 512}
    return {
        "llama": str(checkpoint("llama", **room)),
        "draft": str(checkpoint("llama", seed=1, num_hidden_layers=1, **room)),
        "mixtral": str(checkpoint("mixtral", num_local_experts=8, **room)),
        "texts": str(text_folder(5, 60)),
    }


def press(lab, name: str) -> None:
    lab.get_by_role("button", name=name, exact=True).click()


def reading(lab, dial: str = LOSS) -> str:
    """What the dial says once everything asked for is done."""
    expect(lab.locator(dial)).to_contain_text(re.compile(r"\d"), timeout=60_000)
    expect(lab.locator(".dw-progress")).to_be_empty(timeout=60_000)
    return lab.locator(dial).inner_text()


def moved(lab, before: str, dial: str = LOSS) -> None:
    """The dial shows another number, and all is done."""
    expect(lab.locator(dial)).not_to_have_text(before, timeout=60_000)
    reading(lab)


def dragged(page: Page, lab, label: str, steps: int) -> None:
    """A slider moved by keyboard; right is positive."""
    lab.locator(SLIDER.format(label)).focus()
    for _ in range(abs(steps)):
        page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")


def test_one_gesture_in_each_bench_moves_a_dial(open_page, jupyter, names, shots):
    base, work = jupyter
    (work / NOTEBOOK).write_text(notebook(**names))
    page = open_notebook(open_page, base, NOTEBOOK)
    run_all(page)
    labs = page.locator(".dw-in-jupyter")
    expect(labs).to_have_count(LABS, timeout=60_000)
    adapters, pruning, experts = (labs.nth(place) for place in range(LABS))

    page.screenshot(path=shots / "jupyter-adapters-first.png")
    press(adapters, "▶ Train")
    expect(adapters.get_by_text("lora_1 · lora")).to_be_visible(timeout=60_000)
    trained = reading(adapters)
    page.screenshot(path=shots / "jupyter-adapters.png")
    dragged(page, adapters, "strength", -8)
    moved(adapters, trained)

    pruning.scroll_into_view_if_needed()
    page.screenshot(path=shots / "jupyter-pruning-first.png")
    canvas = pruning.locator(".dw-mask_canvas canvas").first
    deadline = time.monotonic() + 20  # it is drawn when the page finds the time
    while not canvas.evaluate(COLOURED):
        assert time.monotonic() < deadline, "the shades of the weights have the theme's colour"
        page.wait_for_timeout(100)
    press(pruning, "▶ Measure")
    dense = reading(pruning, ACCEPTANCE)
    dragged(page, pruning, "ratio", 10)
    moved(pruning, dense, ACCEPTANCE)
    page.screenshot(path=shots / "jupyter-pruning.png")

    experts.scroll_into_view_if_needed()
    page.screenshot(path=shots / "jupyter-experts-first.png")
    press(experts, "▶ Measure")
    free = reading(experts)
    experts.locator("select:has(option:text-is('everywhere'))").select_option("everywhere")
    press(experts, "Ban")
    expect(experts.locator("[data-intervention]")).to_contain_text("ban expert")
    moved(experts, free)
    page.screenshot(path=shots / "jupyter-experts.png")
    assert page.locator(".jp-OutputArea-error, .jp-mod-error").count() == 0
