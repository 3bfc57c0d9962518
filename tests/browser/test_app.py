"""The dashboard in a browser: two sessions at once, phone width, dark, errors in their block."""

from __future__ import annotations

import lab_page
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_two_sessions_at_once_do_not_see_each_other(open_page, app_url, shots):
    one, two = open_page(app_url), open_page(app_url)
    for page in (one, two):
        lab_page.shown(page)
    one.screenshot(path=shots / "app-light.png")
    tall, window = one.evaluate("[document.documentElement.scrollHeight, innerHeight]")
    assert tall <= window, "nothing scrolls at 1280 x 800"
    lab_page.move_a_knob(one)
    expect(two.get_by_role("button", name="Undo")).to_be_disabled()
    before = lab_page.round_label(two)
    lab_page.click_a_token(one)
    assert lab_page.round_label(two) == before
    for page in (one, two):
        lab_page.click_a_node(page)
        page.get_by_role("button", name="Start").click()
    for page in (one, two):
        expect(page.locator(".dw-progress")).to_contain_text("tokens", timeout=60_000)
    for page in (one, two):
        expect(page.get_by_role("button", name="Start")).to_be_enabled(timeout=90_000)
        lab_page.start_and_stop(page, page.get_by_label("new tokens"))


def test_a_mistake_is_named_in_its_block_and_the_lab_goes_on(open_page, app_url):
    page = open_page(app_url)
    lab_page.shown(page)
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("")
    prompt.blur()
    page.get_by_role("button", name="Start").click()
    error = page.locator("aside .dw-error")
    expect(error).to_contain_text("prompt=''")
    lab_page.click_a_node(page)
    page.get_by_role("button", name="Undo").click()
    expect(error).to_have_count(0)
    lab_page.set_length(page.get_by_label("new tokens"), 0)
    expect(error).to_contain_text("max_new_tokens=0")
    lab_page.set_length(page.get_by_label("new tokens"), 8)
    expect(error).to_have_count(0)


def test_a_saved_trace_and_a_foreign_file(open_page, app_url, tmp_path):
    page = open_page(app_url)
    lab_page.shown(page)
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save").click()
    saved = tmp_path / "run.json"
    caught.value.save_as(saved)
    assert saved.stat().st_size > 1000
    foreign = tmp_path / "foreign.json"
    foreign.write_text('{"hello": 1}')
    upload = page.locator('input[type="file"]')
    upload.set_input_files(foreign)
    expect(page.locator("aside .dw-error")).to_contain_text("foreign.json")
    upload.set_input_files(saved)
    expect(page.locator(".dw-progress")).to_contain_text("saved run from run.json")
    expect(page.locator("aside .dw-error")).to_have_count(0)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_phone(open_page, app_url, shots, dark):
    page = open_page(app_url, width=390, height=844, dark=dark)
    lab_page.shown(page)
    lab_page.no_sideways_scroll(page)
    lab_page.click_a_node(page)
    paper = page.evaluate("getComputedStyle(document.querySelector('.dw-app')).backgroundColor")
    assert (paper == "rgb(20, 24, 29)") == dark
    stream = page.locator(".dw-token_stream")
    expect(stream).to_have_attribute("data-mode", "dark" if dark else "light")
    page.screenshot(path=shots / f"app-390-{'dark' if dark else 'light'}.png", full_page=True)
