"""The frame that every lab shares: its grid, its type, and small pieces of HTML.

*Idea*: the hosts differ in how they place boxes, not in how these look. Colours are the theme's
custom properties, which reach into shadow roots, so one sheet serves both hosts, light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from widgets import theme

TEXT_CSS = """
:host { font-family: var(--dw-sans); font-size: 13px; color: var(--dw-text); }
.dw-title { font-weight: 700; font-size: 11px; color: var(--dw-muted); margin: 0; }
.dw-title b { color: var(--dw-text); font-weight: 650; }
.dw-name { font-weight: 700; font-size: 17px; color: var(--dw-text); white-space: nowrap; }
.dw-model { white-space: nowrap; }
.dw-muted { color: var(--dw-muted); }
.dw-number { font-variant-numeric: tabular-nums; }
.dw-big { font-size: 26px; font-weight: 700; color: var(--dw-text); line-height: 1.1;
  font-variant-numeric: tabular-nums; }
.dw-label { color: var(--dw-muted); font-size: 13px; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; display: block; }
.dw-readout { font-size: 13px; font-variant-numeric: tabular-nums; color: var(--dw-text); }
.dw-error { color: var(--dw-corrected); font-size: 12px; line-height: 1.35; margin: 2px 0;
  overflow-wrap: anywhere; }
.dw-error::before { content: "\\26A0\\FE0E  "; }
.dw-note { color: var(--dw-muted); font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; }
.dw-table { border-collapse: collapse; width: 100%; font-size: 13px; color: var(--dw-text); }
.dw-table td { padding: 2px 0; border: 0; text-align: left; background: none; }
.dw-table td:first-child { color: var(--dw-muted); }
.dw-table td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.dw-why { font-size: 12.5px; line-height: 1.4; color: var(--dw-text); margin: 0 0 6px; }
.dw-facts { padding: 0 18px 8px; }
.dw-facts .dw-why { line-height: 1.35; margin-bottom: 4px; }
.dw-facts .dw-table { font-size: 12px; line-height: 1.25; }
.dw-facts .dw-table td { padding: 1px 0; }
.dw-progress { display: flex; align-items: center; justify-content: flex-end; gap: 12px;
  font-size: 13px; color: var(--dw-muted); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.dw-track { width: 150px; height: 5px; border-radius: 3px; background: var(--dw-rule);
  overflow: hidden; flex: 0 1 auto; min-width: 30px; }
.dw-fill { height: 100%; background: var(--dw-accent); border-radius: 3px; }
.dw-fill.dw-open { width: 40%; animation: dw-slide 1.2s ease-in-out infinite alternate; }
@keyframes dw-slide { from { margin-left: 0 } to { margin-left: 60% } }
@media (max-width: 760px) { .dw-progress { justify-content: flex-start; }
  .dw-model { white-space: normal; } }
@media (prefers-reduced-motion: reduce) { .dw-fill.dw-open { animation: none; width: 100%;
  opacity: .5; } }
.dw-dials { display: flex; gap: 16px; margin-top: 4px; align-items: flex-start; }
.dw-split { display: flex; height: 10px; gap: 2px; margin: 6px 0 3px; }
.dw-split i { display: block; border-radius: 2px; min-width: 1px; }
.dw-small { font-size: 11.5px; line-height: 1.4; color: var(--dw-muted); }
.dw-verdict { font-size: 12.5px; line-height: 1.45; margin: 0; color: var(--dw-text);
  padding: 8px 18px; border-top: 1px solid var(--dw-rule); min-height: 54px; }
.dw-small abbr, .dw-table abbr { text-decoration: underline dotted; text-underline-offset: 2px;
  cursor: help; }
"""

GRID_CSS = """
.dw-lab { container-type: inline-size; }
.dw-lab *, .dw-lab *::before, .dw-lab *::after { box-sizing: border-box; }
.dw-grid { display: grid; grid-template: 50px minmax(0, 1fr) / 252px minmax(0, 1fr);
  grid-template-areas: "head head" "side main"; height: 100%; width: 100%; overflow: hidden; }
.dw-grid.dw-bare { grid-template-columns: 0 minmax(0, 1fr); }
.dw-head { grid-area: head; display: flex; align-items: center; gap: 10px; padding: 0 18px;
  border-bottom: 1px solid var(--dw-rule); overflow: hidden; }
.dw-side { grid-area: side; border-right: 1px solid var(--dw-rule); min-height: 0; display: flex;
  flex-direction: column; overflow: hidden; }
.dw-knobs { flex: 1 1 auto; min-height: 0; padding: 10px 18px; overflow: hidden auto;
  scrollbar-width: thin; }
.dw-foot { flex: none; padding: 8px 18px; border-top: 1px solid var(--dw-rule); }
.dw-main { grid-area: main; display: grid; min-width: 0; min-height: 0;
  grid-template-rows: minmax(120px, 21fr) minmax(250px, 56fr) minmax(164px, 23fr) auto; }
.dw-band { display: grid; min-width: 0; min-height: 0; border-top: 1px solid var(--dw-rule); }
.dw-band:first-child { border-top: 0; }
.dw-middle { grid-template-columns: minmax(0, 1fr) 330px; }
.dw-bottom { grid-template-columns: minmax(0, 1fr) minmax(0, 236px) 330px; }
.dw-cell { min-width: 0; min-height: 0; overflow: hidden; position: relative; }
.dw-cell + .dw-cell { border-left: 1px solid var(--dw-rule); }
.dw-block { padding: 10px 18px; overflow: hidden auto; scrollbar-width: thin; }
.dw-bottom > .dw-block { padding: 8px 16px; }
.dw-corner { position: absolute; right: 8px; top: 32px; z-index: 2; }
.dw-node { display: flex; flex-direction: column; overflow: hidden auto; scrollbar-width: thin; }
.dw-main.dw-board { display: flex; flex-direction: column; overflow: hidden auto; }
.dw-board > .dw-board-band { display: flex; flex: 1 1 0; }
@container (max-width: 760px) {
  .dw-grid { display: flex; flex-direction: column; height: auto; overflow: visible; }
  .dw-head { flex-wrap: wrap; padding: 10px 14px; height: auto; }
  .dw-side, .dw-knobs { border-right: 0; overflow: visible; }
  .dw-knobs, .dw-foot { padding: 10px 14px; }
  .dw-main, .dw-band { display: flex; flex-direction: column; }
  .dw-cell { border-top: 1px solid var(--dw-rule); overflow: visible; }
  .dw-cell + .dw-cell { border-left: 0; }
  .dw-block { padding: 10px 14px; }
}
"""


def css() -> str:
    """The whole sheet: theme, frame and text."""
    return (
        f":root {{ --dw-sans: {theme.SANS}; --dw-mono: {theme.MONO}; }}"
        + theme.css()
        + TEXT_CSS
        + GRID_CSS
    )


def error_html(text: str | None) -> str:
    """A message in the block it concerns; announced by a screen reader."""
    return f'<div class="dw-error" role="alert">{escape(text)}</div>' if text else ""


def progress_html(line: str, fraction: float | None) -> str:
    """A bar with its line; ``fraction`` None = under way with no end known."""
    if not line:
        return '<div class="dw-progress"></div>'
    if fraction is None:
        bar = '<div class="dw-fill dw-open"></div>'
    else:
        bar = f'<div class="dw-fill" style="width:{100 * fraction:.0f}%"></div>'
    shown = f"{100 * fraction:.0f} % · {line}" if fraction and fraction < 1 else line
    track = f'<div class="dw-track" aria-hidden="true">{bar}</div>'
    if fraction == 0:
        track = ""
    return f'<div class="dw-progress" role="status">{track}<span>{escape(shown)}</span></div>'


def head_html(title: str, model_line: str) -> str:
    """Name of the workbench and what runs on what."""
    return (
        f'<span class="dw-name">{escape(title)}</span>&ensp;'
        f'<span class="dw-muted dw-model" title="{escape(model_line, True)}">'
        f"{escape(model_line)}</span>"
    )


def table_html(rows: list[tuple[str, str]], helps: Mapping[str, str] | None = None) -> str:
    """Label and number, one pair a line; ``helps`` explains a label by its part before a colon."""
    body = ""
    for label, number in rows:
        shown, told = escape(label), (helps or {}).get(label.partition(":")[0])
        if told:
            shown = f'<abbr title="{escape(told, True)}">{shown}</abbr>'
        body += f"<tr><td>{shown}</td><td>{escape(number)}</td></tr>"
    return f'<table class="dw-table">{body}</table>'
