"""JupyterLab runs the tour with nobody's settings and no network; then a person uses the lab."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request

import lab_page
import pytest
from conftest import ROOT
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
NOTEBOOK = "00_tour.ipynb"
LABS = 3  # that the tour shows


def kernels(base: str, path: str) -> list[dict]:
    with urllib.request.urlopen(f"{base}/api/sessions", timeout=5) as answer:
        return [s["kernel"] for s in json.load(answer) if s["path"] == path and s["kernel"]]


def wait_until_ready(page: Page, base: str, path: str, timeout_s: float = 60) -> None:
    """Until the kernel is idle and connected: a command sent earlier is silently lost.

    The page does the waiting: its requests pass through this thread.
    """
    end = time.monotonic() + timeout_s
    while True:
        found = kernels(base, path)
        if any(k["execution_state"] == "idle" and k.get("connections") for k in found):
            return
        assert time.monotonic() < end, f"no idle kernel after {timeout_s:.0f} s: {found}"
        page.wait_for_timeout(300)


def open_notebook(open_page, base: str, path: str, **how) -> Page:
    """One notebook alone, ready, with the file browser away so that labs get the width.

    In a workspace of its own: the default one brings back what an earlier test left open.
    """
    page = open_page(f"{base}/lab/workspaces/{path.split('.')[0]}/tree/{path}", **how)
    wait_until_ready(page, base, path)
    page.keyboard.press("Control+b")
    return page


def run_all(page: Page) -> None:
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).first.click()


def test_the_tour_runs_and_the_lab_answers(open_page, jupyter, shots):
    base, work = jupyter
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, work / NOTEBOOK)
    page = open_notebook(open_page, base, NOTEBOOK)
    run_all(page)
    expect(page.locator(".dw-in-jupyter")).to_have_count(LABS, timeout=90_000)
    wait_until_ready(page, base, NOTEBOOK)
    lab = page.locator(".dw-in-jupyter").first
    lab.scroll_into_view_if_needed()
    scope = Scope(page, lab)
    lab_page.shown(scope)
    scope.idle()
    lab_page.click_a_token(scope)
    lab_page.click_a_node(scope)
    lab_page.move_a_knob(scope)
    page.screenshot(path=shots / "jupyter-light.png")
    lab_page.start_and_stop(scope, lab.locator('input[type="number"]').first)
    assert page.locator(".jp-OutputArea-error, .jp-mod-error").count() == 0


class Scope:
    """A page narrowed to one lab, because the tour shows several."""

    def __init__(self, page: Page, lab):
        self.locator, self.get_by_role, self.keyboard = lab.locator, lab.get_by_role, page.keyboard
        self.evaluate = page.evaluate

    def idle(self) -> None:
        """The run that the tour itself started has ended."""
        expect(self.get_by_role("button", name="Start")).to_be_enabled(timeout=60_000)
