"""The pruning lab's page in a browser: a mask painted, the dial changed, undo; phone and dark."""

from __future__ import annotations

import re

import lab_page
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LOSS = "[data-dials] .dw-dial:first-child .dw-big"
STAGE = ".dw-mask_canvas .stage"


@pytest.fixture(scope="module")
def address(app_url, checkpoint):
    folder = checkpoint("llama", max_position_embeddings=512)
    return f"{app_url}pruning?model={folder}&draft="


def ready(page) -> str:
    """The first reading is taken; what the loss is."""
    loss = page.locator(LOSS).first
    expect(loss).to_contain_text(re.compile(r"\d"), timeout=90_000)
    expect(page.locator(".dw-progress")).to_be_empty(timeout=60_000)
    return loss.text_content()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_mask_painted_changes_the_dial(open_page, address, shots, dark):
    page = open_page(address, dark=dark)
    field = page.get_by_label("matrix").first
    field.evaluate("field => { field.seen = true; field.focus() }")
    field.select_option(label="layers")  # while the model loads, which brings further choices
    before = ready(page)
    expect(field.locator("option")).not_to_have_count(4)
    held = "field => field.seen === true && field.getRootNode().activeElement === field"
    assert field.evaluate(held), "the form was put in anew under the hand"
    expect(page.get_by_text("1 − cosine of each layer")).to_be_visible()
    box = page.locator(STAGE).bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + box["height"] * 0.1)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + box["height"] * 0.25, steps=3)
    page.mouse.up()
    loss = page.locator(LOSS).first
    expect(loss).not_to_have_text(before, timeout=60_000)
    expect(page.get_by_role("button", name="Cut out")).to_be_enabled()
    page.screenshot(path=shots / f"pruning-{'dark' if dark else 'light'}.png")
    page.get_by_role("button", name="Undo", exact=False).first.click()
    expect(loss).to_have_text(before, timeout=60_000)


def test_curves_and_layers(open_page, address, shots):
    page = open_page(address)
    ready(page)
    page.get_by_label("pruner").first.select_option(label="Wanda")
    page.get_by_role("button", name="Layers", exact=True).click()
    expect(page.get_by_text("Which layers hurt")).to_be_visible(timeout=90_000)
    page.get_by_role("button", name="Curves", exact=True).click()
    expect(page.get_by_text("ring: now")).to_be_visible(timeout=120_000)
    expect(page.locator(".dw-progress")).to_be_empty(timeout=120_000)
    page.screenshot(path=shots / "pruning-curves.png")


def test_on_a_phone(open_page, address, shots):
    page = open_page(address, width=390, height=844)
    expect(page.get_by_role("button", name="Reset", exact=True)).to_be_visible(timeout=30_000)
    lab_page.no_sideways_scroll(page)
    ready(page)
    page.screenshot(path=shots / "pruning-390.png", full_page=True)


def test_a_charts_heading_has_the_room_of_its_place(open_page, app_url):
    page = open_page(f"{app_url}pruning", width=1440)
    lines = page.locator("[data-place=loss] .gtitle tspan.line")
    expect(lines).to_have_count(2, timeout=60_000)
    page.set_viewport_size({"width": 390, "height": 800})
    expect(lines).to_have_count(3)
