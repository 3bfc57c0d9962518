"""The verifier and what-if pages in a browser: drag, choose, audit, scrub; phone width and dark."""

from __future__ import annotations

import lab_page
import pytest
from playwright.sync_api import expect

from widgets.app.page import PAGES

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_dragging_a_bar_changes_every_block(open_page, app_url, shots, dark):
    page = open_page(f"{app_url}verifier", dark=dark)
    bar = page.get_by_role("slider", name="target probability of self")
    expect(bar).to_have_attribute("aria-valuenow", "0.420", timeout=30_000)
    expect(page.get_by_text("no rule exceeds this")).to_be_visible()
    page.get_by_label("sampler").select_option(label="independent (SpecInfer, SpecTr)")
    line = page.get_by_text("no rule exceeds 0.")
    before = line.text_content()
    box = bar.bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + box["height"] * 0.02, steps=5)
    page.mouse.up()
    expect(bar).not_to_have_attribute("aria-valuenow", "0.420")
    expect(line).not_to_have_text(before)
    other = page.get_by_role("slider", name="draft probability of None")
    other.focus()
    page.keyboard.press("ArrowUp")
    expect(other).to_have_attribute("aria-valuenow", "0.420")
    page.get_by_role("button", name="Undo").click()
    expect(other).to_have_attribute("aria-valuenow", "0.400")
    page.screenshot(path=shots / f"verifier-{'dark' if dark else 'light'}.png")


def test_a_wrong_rule_is_named_and_a_run_is_audited(open_page, app_url, shots):
    page = open_page(f"{app_url}verifier")
    rule = page.get_by_label("rule").first
    expect(rule).to_be_visible(timeout=30_000)
    rule.select_option(label="✗ resamples from target (wrong)")
    expect(page.get_by_text("draws from p again")).to_be_visible()
    expect(page.get_by_text("BROKEN").first).to_be_visible()
    page.get_by_role("button", name="Audit a run").click()
    expect(page.get_by_text("Audit of a run: draft_model")).to_be_visible(timeout=120_000)
    expect(page.get_by_text("The verifier itself is wrong")).to_be_visible()
    page.screenshot(path=shots / "verifier-audit.png")


def test_a_recorded_round_gives_its_laws_and_everything_stays_legible(open_page, app_url):
    page = open_page(f"{app_url}verifier", dark=True)
    page.get_by_role("button", name="p and q of a recorded round").click(timeout=30_000)
    expect(page.get_by_text("laws of round")).to_be_visible()
    expect(page.get_by_text("Laws of a recorded run")).to_be_visible()
    head = page.locator(".dw-head").bounding_box()
    for name in ("Audit a run", "Stop"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert head["y"] <= box["y"] and box["y"] + box["height"] <= head["y"] + head["height"]
    words = page.get_by_text("show wrong rules too")
    colour = words.evaluate("e => getComputedStyle(e).color.match(/[0-9]+/g).map(Number)")
    assert min(colour[:3]) > 128, f"dark words on a dark page: {colour}"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_change_answers_at_once_and_the_tree_follows(open_page, app_url, shots, dark):
    page = open_page(f"{app_url}what-if", dark=dark)
    expect(page.get_by_text("as it was recorded. Change")).to_be_visible(timeout=30_000)
    page.get_by_label("verifier").first.select_option(label="Exact match")
    expect(page.get_by_text("Fewer:")).to_be_visible()
    label = page.locator(".dw-draft_tree output")
    expect(label).to_contain_text("round 1 of")
    page.get_by_role("button", name="next round").or_(page.locator(".scrub button").last).click()
    expect(label).to_contain_text("round 2 of")
    page.get_by_role("button", name="Undo").click()
    page.screenshot(path=shots / f"what-if-{'dark' if dark else 'light'}.png")


@pytest.mark.parametrize("path", ["verifier", "what-if"])
def test_on_a_phone(open_page, app_url, shots, path):
    page = open_page(f"{app_url}{path}", width=390, height=844)
    expect(page.get_by_role("button", name="Reset")).to_be_visible(timeout=30_000)
    lab_page.no_sideways_scroll(page)
    page.get_by_role("link", name="Decode").click()
    lab_page.shown(page)
    page.screenshot(path=shots / f"{path}-390.png", full_page=True)


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_can_be_reached_by_key_and_undo_is_always_in_sight(
    open_page, app_url, path, width
):
    page = open_page(f"{app_url}{path[1:]}", width=width, height=800)
    reset = page.get_by_role("button", name="Reset", exact=True)
    expect(reset).to_be_visible(timeout=60_000)
    lab_page.no_sideways_scroll(page)
    links = page.get_by_role("navigation", name="Labs").get_by_role("link")
    assert links.all_inner_texts() == list(PAGES.values())
    for name in PAGES.values():
        page.keyboard.press("Tab")
        expect(links.filter(has_text=name)).to_be_focused()
    expect(page.locator("nav [aria-current]")).to_have_text(PAGES[path])
    if width > 760:
        tops = {round(links.nth(place).bounding_box()["y"]) for place in range(len(PAGES))}
        box = reset.bounding_box()
        assert len(tops) == 1 and box["y"] + box["height"] <= 800
