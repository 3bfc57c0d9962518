"""What a person does on the decode lab, whatever host it is in."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

ROUND = re.compile(r"round (\d+) of (\d+)")
LAW = ".gtitle"


def shown(page: Page) -> None:
    """The lab is there with a run and its charts."""
    expect(page.locator(".dw-draft_tree .node").first).to_be_visible()
    expect(page.locator(".dw-token_stream .scroll .token").first).to_be_visible()
    expect(page.locator(LAW).filter(has_text=re.compile("Node|root"))).to_be_visible()
    expect(page.locator(LAW).filter(has_text="Accepted per round")).to_be_visible()


def round_label(page: Page) -> str:
    return page.locator(".dw-draft_tree output").inner_text()


def click_a_node(page: Page) -> None:
    """A node that is not selected: the laws and the sentence beside it change."""
    node = page.locator(".dw-draft_tree .node:not(.chosen):not(.root)").first
    wanted = node.get_attribute("data-node")
    law = page.locator(LAW).filter(has_text="Node")
    fate = node.get_attribute("class").replace("node", "").strip()
    before = page.locator(".dw-why").inner_text()
    node.click()
    expect(page.locator(f'.dw-draft_tree .node.chosen[data-node="{wanted}"]')).to_be_visible()
    expect(law).to_contain_text(fate)
    expect(page.locator(".dw-why")).not_to_have_text(before)


def click_a_token(page: Page) -> None:
    """The first token: its round is shown everywhere."""
    page.locator('.dw-token_stream .token[data-i="0"]').click()
    expect(page.locator(".dw-draft_tree output")).to_have_text(re.compile(r"^round 1 of "))
    expect(page.locator('.dw-token_stream .token[data-i="0"]')).to_have_class(re.compile("chosen"))
    page.keyboard.press("]")
    expect(page.locator(".dw-draft_tree output")).to_have_text(re.compile(r"^round 2 of "))


def move_a_knob(page: Page) -> None:
    """Temperature one step up by keyboard; Undo takes it back."""
    handle = page.locator(".noUi-handle").nth(3)
    readout = page.locator(".dw-readout").nth(3)
    undo = page.get_by_role("button", name="Undo")
    before = readout.inner_text()
    expect(undo).to_be_disabled()
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(readout).not_to_have_text(before)
    expect(undo).to_be_enabled()
    undo.click()
    expect(readout).to_have_text(before)


def start_and_stop(page: Page, box) -> None:
    """A long run is stopped in the middle and keeps its text; then a short one ends by itself."""
    set_length(box, 600)
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".dw-progress")).to_contain_text("of 600 tokens", timeout=40_000)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".dw-progress")).to_contain_text("stopped after")
    expect(page.locator(".dw-token_stream .scroll .token").first).to_be_visible()
    set_length(box, 12)
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".dw-progress")).to_have_text(re.compile(r"^\d+ tokens"), timeout=40_000)
    expect(page.locator(".dw-verdict")).to_contain_text("plain decoding")


def set_length(box, count: int) -> None:
    box.fill(str(count))
    box.press("Enter")


def no_sideways_scroll(page: Page) -> None:
    wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window, f"the page is {wide} px wide in a window of {window}"
