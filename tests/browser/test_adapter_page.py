"""The adapter page in a browser: train, move the strength, see the dial change; undo and reset."""

from __future__ import annotations

import re

import lab_page
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LOSS = "[data-dials] .dw-dial:first-child .dw-big"


def dial(page) -> str:
    return page.locator(LOSS).first.text_content()


def ready(page) -> str:
    """The first reading is taken; what the loss is."""
    expect(page.locator(LOSS).first).to_contain_text(re.compile(r"\d"), timeout=90_000)
    still(page)
    return dial(page)


@pytest.fixture(scope="module")
def address(app_url, checkpoint):
    target = checkpoint("llama", max_position_embeddings=512)
    draft = checkpoint("llama", seed=1, num_hidden_layers=1, max_position_embeddings=512)
    return f"{app_url}adapters?model={target}&draft={draft}"


@pytest.fixture(scope="module")
def texts(text_folder):
    return text_folder(5, 60)


def set_line(page, label: str, value: str) -> None:
    box = page.get_by_label(label, exact=True).first
    box.fill(value)
    box.press("Enter")


def still(page) -> None:
    expect(page.locator(".dw-progress")).to_be_empty(timeout=120_000)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_strength_moved_changes_the_dial(open_page, address, texts, shots, dark):
    page = open_page(address, dark=dark)
    base = ready(page)
    page.get_by_label("data", exact=True).first.select_option(label="folder")
    set_line(page, "folder", str(texts))
    page.get_by_role("button", name="Train").click()
    expect(page.locator(".dw-progress")).to_contain_text("Training lora", timeout=60_000)
    expect(page.get_by_text("lora_1 · lora")).to_be_visible(timeout=120_000)
    expect(page.locator(LOSS).first).not_to_have_text(base, timeout=60_000)
    still(page)  # there is no work under way for a moment between training and the new reading
    trained = dial(page)
    page.screenshot(path=shots / f"adapters-{'dark' if dark else 'light'}.png")
    handle = page.locator(".noUi-handle").first
    handle.focus()
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    expect(page.locator(LOSS).first).not_to_have_text(trained, timeout=60_000)
    still(page)
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(LOSS).first).to_have_text(base, timeout=60_000)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(LOSS).first).not_to_have_text(base, timeout=60_000)


def test_a_folder_that_is_none_is_a_message(open_page, address, shots):
    page = open_page(address)
    ready(page)
    set_line(page, "path", "/nowhere/at/all")
    page.get_by_role("button", name="Open folder").click()
    expect(page.locator(".dw-error")).to_contain_text("adapter_config.json", timeout=60_000)


def test_on_a_phone(open_page, address, shots):
    page = open_page(address, width=390, height=844)
    expect(page.get_by_role("button", name="Train")).to_be_visible(timeout=60_000)
    lab_page.no_sideways_scroll(page)
    page.screenshot(path=shots / "adapters-390.png", full_page=True)
