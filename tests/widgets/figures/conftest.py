"""A bare page that renders one ESM view over a fake anywidget model; every request is refused."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from widgets.views import esm

BEFORE, NOW = "2030-01-01T11:00:00Z", "2030-01-01T12:00:00Z"  # where time stands still
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

FRAMES = """
() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))
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
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Stage:
    """One rendered view. ``events`` is its outbox; ``set`` changes a trait as a kernel would."""

    def __init__(self, page: Any, still: bool):
        self.page, self.still = page, still

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.page.evaluate("() => model.get('outbox')")

    def set(self, name: str, value: Any) -> None:
        self.page.evaluate("([name, value]) => model.set(name, value)", [name, value])

    def said(self, count: int = 0) -> list[dict[str, Any]]:
        """The events without their numbers, once there are ``count`` of them."""
        if count:
            self.page.wait_for_function("(n) => model.get('outbox').length >= n", arg=count)
        return [{k: v for k, v in event.items() if k != "seq"} for event in self.events]

    def drawn(self) -> None:
        """Wait until all that was asked for before is drawn."""
        self.pass_ms(80) if self.still else self.page.evaluate(FRAMES)

    def pass_ms(self, ms: int) -> None:
        """So much time goes by on a ``still`` stage, frames and timers with it."""
        self.page.clock.run_for(ms)


@pytest.fixture
def stage(chromium):
    """``stage(view name, traits, width=..., dark=...)``; fails on any error or outside request.

    On a ``still`` stage no time passes but by ``pass_ms``: what a view does when it gets no answer
    within some milliseconds must not depend on how slow the machine is.
    """
    wrong: list[str] = []
    pages = []

    def open_(
        name: str,
        state: dict[str, Any],
        *,
        width=1000,
        height=420,
        dark=False,
        body="",
        still=False,
    ):
        scheme = "dark" if dark else "light"
        page = chromium.new_page(
            viewport={"width": width, "height": height + 40}, color_scheme=scheme
        )
        pages.append(page)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.route("http**", lambda route: (wrong.append(route.request.url), route.abort()))
        if still:
            page.clock.install(time=BEFORE)
            page.clock.pause_at(NOW)
        page.set_content(f'<body style="margin:0;{body}"><div id="el" style="height:{height}px">')
        traits = {"outbox": [], "mode": "auto", "box_px": 0, **state}
        page.evaluate(BOOT, {"text": esm.source(name), "state": traits})
        return Stage(page, still)

    yield open_
    for page in pages:
        page.close()
    assert not wrong, wrong
