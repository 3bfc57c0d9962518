"""Tells Python whether the browser wants a dark page; charts are drawn by Python and must know."""

from __future__ import annotations

import param
from panel.custom import AnyWidgetComponent


class HostMode(AnyWidgetComponent):
    """Invisible; ``dark`` follows the browser, None before it has spoken."""

    _esm = """
export default {
  render({ model, el }) {
    el.style.display = "none";
    const wish = matchMedia("(prefers-color-scheme: dark)");
    const tell = () => { model.set("dark", wish.matches); model.save_changes(); };
    wish.addEventListener("change", tell);
    tell();
    return () => wish.removeEventListener("change", tell);
  },
};
"""
    dark = param.Boolean(default=None, allow_None=True)
