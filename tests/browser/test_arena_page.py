"""The arena's page: a recorded example, a sweep that fills the bars, a click, cost elsewhere."""

from __future__ import annotations

import re

import lab_page
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

HEADING = "[data-cell]"
PROGRESS = ".dw-progress"
RECORDED = ".gtitle:has-text('Recorded example')"


def bars(page):
    return page.locator(".js-plotly-plot").first.locator(".barlayer .point path")


def fill(page, label: str, value: str) -> None:
    box = page.get_by_label(label, exact=True)
    box.fill(value)
    box.press("Enter")


def test_a_sweep_fills_the_bars_and_other_hardware_is_predicted(
    open_page, app_url, checkpoint, shots, tmp_path
):
    folder, sweep = checkpoint("llama", max_position_embeddings=2048), tmp_path / "sweep"
    page = open_page(f"{app_url}arena?targets={folder}&draft=&folder={sweep}")
    expect(page.locator(RECORDED)).to_be_visible()
    expect(page.locator(HEADING)).to_have_count(1)
    expect(bars(page)).to_have_count(8)
    expect(page.locator(".dw-note")).to_contain_text("1 cannot run")
    fill(page, "per kind", "1")
    fill(page, "new tokens", "8")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".dw-note")).to_contain_text("9 of 9 measured, kept in", timeout=60_000)
    expect(page.locator(RECORDED)).to_have_count(0)
    expect(bars(page)).to_have_count(3)
    expect(page.get_by_text("nothing measured yet")).to_have_count(0)
    expect(page.locator("[data-refused]")).to_contain_text("needs a draft model")
    expect(page.locator("[data-verdict]")).to_contain_text(re.compile("plain"))
    before = page.locator(HEADING).inner_text()
    bars(page).nth(2).click(force=True)
    expect(page.locator(HEADING)).not_to_have_text(before)
    page.screenshot(path=shots / "arena.png")
    page.get_by_role("button", name="Export").click()
    expect(page.locator(".dw-note")).to_contain_text("measurements.parquet")
    page.get_by_label("view", exact=True).select_option(label="Other hardware")
    expect(page.locator("[data-predicted]")).to_be_visible()
    page.get_by_label("placement", exact=True).select_option(label="draft on another device")
    expect(page.get_by_text("transfer between devices")).to_be_visible()
    expect(page.get_by_text("16 nodes:")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_be_disabled()


def test_bad_input_is_said_on_a_phone_in_the_dark(open_page, app_url, shots, tmp_path):
    page = open_page(f"{app_url}arena?folder={tmp_path}", width=390, height=844, dark=True)
    expect(page.locator(RECORDED)).to_be_visible()
    fill(page, "knobs", "policy.depht=2")
    expect(page.locator(".dw-error")).to_contain_text("policy.depth")
    lab_page.no_sideways_scroll(page)
    page.screenshot(path=shots / "arena-390.png", full_page=True)


def test_a_second_tab_waits_for_the_first_says_so_and_can_be_stopped(
    open_page, app_url, checkpoint, shots, tmp_path
):
    target = checkpoint("llama", max_position_embeddings=2048)
    one, two = (
        open_page(f"{app_url}arena?targets={target}&draft=&folder={tmp_path / name}")
        for name in ("one", "two")
    )
    fill(one, "new tokens", "600")
    one.get_by_role("button", name="Start").click()
    expect(one.locator(PROGRESS)).to_contain_text(re.compile("of |Loading"), timeout=30_000)
    two.get_by_role("button", name="Start").click()
    expect(two.locator(".dw-note")).to_contain_text(f"waiting for the sweep in {tmp_path / 'one'}")
    expect(two.locator(PROGRESS)).to_contain_text("Waiting for its turn")
    two.screenshot(path=shots / "arena-waiting.png")
    two.get_by_role("button", name="Stop").click()
    expect(two.locator(".dw-note")).to_contain_text("0 of 18 measured")
    two.get_by_role("button", name="Start").click()
    expect(two.locator(PROGRESS)).to_contain_text("Waiting for its turn")
    one.get_by_role("button", name="Stop").click()
    expect(two.locator(".dw-note")).to_contain_text("18 of 18 measured", timeout=60_000)
    expect(two.locator(".dw-table").first).to_contain_text("of 6 pairs")
