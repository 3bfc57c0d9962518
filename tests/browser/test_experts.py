"""The expert lab's page in a browser: an expert is banned, the dial changes, undo takes it back."""

from __future__ import annotations

import re

import lab_page
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LOSS = "[data-dials] .dw-dial:first-child .dw-big"


def dial(page) -> str:
    return page.locator(LOSS).first.text_content()


@pytest.fixture(scope="module")
def address(app_url, checkpoint):
    folder = checkpoint("mixtral", num_local_experts=8, max_position_embeddings=512)
    return f"{app_url}experts?model={folder}&draft="


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_an_expert_banned_changes_the_dial(open_page, address, shots, dark):
    page = open_page(address, dark=dark)
    expect(page.locator(LOSS).first).to_contain_text(re.compile(r"\d"), timeout=90_000)
    expect(page.get_by_text("experts by token and layer")).to_be_visible()
    expect(page.locator(".dw-progress")).to_be_empty(timeout=60_000)
    before = dial(page)
    page.get_by_label("scope").select_option(label="everywhere")
    page.get_by_role("button", name="Ban", exact=True).click()
    expect(page.locator("[data-intervention]")).to_contain_text("ban expert")
    expect(page.locator(LOSS).first).not_to_have_text(before, timeout=60_000)
    page.screenshot(path=shots / f"experts-{'dark' if dark else 'light'}.png")
    page.get_by_role("button", name="Reset", exact=True).click()
    expect(page.locator("[data-intervention]")).to_have_count(0)
    expect(page.locator(LOSS).first).to_have_text(before, timeout=60_000)


def test_it_opens_on_the_embedded_mixture_with_acceptance(open_page, app_url, shots):
    page = open_page(f"{app_url}experts")
    acceptance = page.locator("[data-dials] .dw-dial:nth-child(2) .dw-big").first
    expect(acceptance).to_contain_text(re.compile(r"0\.\d"), timeout=120_000)
    expect(page.get_by_text("8 experts by token and layer")).to_be_visible()
    page.screenshot(path=shots / "experts-embedded.png")


def test_a_click_on_the_grid_selects_token_and_layer(open_page, address, shots):
    page = open_page(address)
    heading = page.get_by_text("experts by token and layer")
    expect(heading).to_be_visible(timeout=90_000)
    expect(page.get_by_text("Next one: expert")).to_contain_text("layer 0, token 0")
    area = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
    page.mouse.click(area["x"] + area["width"] * 0.5, area["y"] + area["height"] * 0.15)
    expect(page.get_by_text("Next one: expert")).not_to_contain_text("layer 0, token 0")
    expect(page.get_by_text("Next one: expert")).to_contain_text("layer 2")


def test_trees_on_a_mixture_and_the_cache(open_page, address, shots):
    page = open_page(address)
    expect(page.get_by_text("experts by token and layer")).to_be_visible(timeout=90_000)
    page.get_by_role("button", name="Measure trees").click()
    expect(page.locator("[data-cost]")).to_contain_text("plain decoding", timeout=120_000)
    page.screenshot(path=shots / "experts-trees.png")
    page.get_by_role("button", name="Simulate cache").click()
    expect(page.get_by_text("waiting, projected")).to_be_visible(timeout=120_000)
    page.screenshot(path=shots / "experts-cache.png")


def test_on_a_phone(open_page, address, shots):
    page = open_page(address, width=390, height=844)
    expect(page.get_by_role("button", name="Reset", exact=True)).to_be_visible(timeout=30_000)
    lab_page.no_sideways_scroll(page)
    expect(page.get_by_text("experts by token and layer")).to_be_visible(timeout=90_000)
    page.screenshot(path=shots / "experts-390.png", full_page=True)
