"""Tells Python what charts need and only the browser knows: dark or light, and how much room."""

from __future__ import annotations

import param
from panel.custom import AnyWidgetComponent


class HostMode(AnyWidgetComponent):
    """Invisible; ``dark`` follows the browser, None before it has spoken.

    ``widths_px`` holds the width of every place on the page with a ``data-place``, by that name, in
    steps of 20 pixels.
    """

    _esm = """
export default {
  render({ model, el }) {
    el.style.display = "none";
    const wish = matchMedia("(prefers-color-scheme: dark)");
    const cells = [...document.querySelectorAll("[data-place]")];
    let timer, told = "";
    const widths = () => Object.fromEntries(cells.map((cell) =>
      [cell.dataset.place, 20 * Math.floor(cell.clientWidth / 20)]));
    const tell = () => {
      const now = widths();
      if (JSON.stringify(now) !== told) { told = JSON.stringify(now); model.set("widths_px", now); }
      model.set("dark", wish.matches);
      model.save_changes();
    };
    const watch = new ResizeObserver(() => { clearTimeout(timer); timer = setTimeout(tell, 200); });
    wish.addEventListener("change", tell);
    tell();
    for (const cell of cells) watch.observe(cell);
    return () => {
      clearTimeout(timer);
      watch.disconnect();
      wish.removeEventListener("change", tell);
    };
  },
};
"""
    dark = param.Boolean(default=None, allow_None=True)
    widths_px = param.Dict(default={})
