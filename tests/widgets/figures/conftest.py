"""A bare page that renders one ESM view over a fake anywidget model; every request is refused."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from widgets.views import esm

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic")
BOOT = """
async ({ text, state }) => {
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const view = (await import(url)).default, heard = {};
  window.model = {
    saves: 0,
    get: (key) => state[key],
    set: (key, value) => {
      state[key] = value;
      (heard["change:" + key] || []).slice().forEach((handler) => handler());
    },
    save_changes() { this.saves += 1; },
    on: (name, handler) => { (heard[name] ??= []).push(handler); },
    off: (name, handler) => {
      heard[name] = (heard[name] || []).filter((kept) => kept !== handler);
    },
    listeners: () => Object.values(heard).flat().length,
  };
  window.leave = view.render({ model: window.model, el: document.getElementById("el") });
}
"""


def _chromium() -> str:
    path = os.environ.get("WORKBENCH_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")
    if not path:
        reason = "no Chromium on this machine; install the system's chromium package"
        missing = os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1"
        pytest.fail(reason) if missing else pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def chromium():
    """One headless browser for a file of tests."""
    path = _chromium()
    play = pytest.importorskip("playwright.sync_api")
    with play.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Stage:
    """One rendered view. ``events`` is its outbox; ``set`` changes a trait as a kernel would."""

    def __init__(self, page: Any):
        self.page = page

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.page.evaluate("() => model.get('outbox')")

    def set(self, name: str, value: Any) -> None:
        self.page.evaluate("([name, value]) => model.set(name, value)", [name, value])

    def said(self) -> list[dict[str, Any]]:
        """The events without their numbers."""
        return [{k: v for k, v in event.items() if k != "seq"} for event in self.events]


@pytest.fixture
def stage(chromium):
    """``stage(view name, traits, width=..., dark=...)``; fails on any error or outside request."""
    wrong: list[str] = []
    pages = []

    def open_(name: str, state: dict[str, Any], *, width=1000, height=420, dark=False, body=""):
        scheme = "dark" if dark else "light"
        page = chromium.new_page(
            viewport={"width": width, "height": height + 40}, color_scheme=scheme
        )
        pages.append(page)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.route("http**", lambda route: (wrong.append(route.request.url), route.abort()))
        page.set_content(f'<body style="margin:0;{body}"><div id="el" style="height:{height}px">')
        traits = {"outbox": [], "mode": "auto", "box_px": 0, **state}
        page.evaluate(BOOT, {"text": esm.source(name), "state": traits})
        return Stage(page)

    yield open_
    for page in pages:
        page.close()
    assert not wrong, wrong
