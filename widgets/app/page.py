"""The HTML of a page of the dashboard: the shared frame, filled by the roots of a lab's view."""

from __future__ import annotations

import panel as pn

from widgets.labs import frame
from widgets.labs.board import Board

PAGE_CSS = """
html, body { height: 100%; margin: 0; }
:root { --bokeh-base-font: var(--dw-sans); --bokeh-font-size: 13px; }
body.dw { height: 100vh; }
.dw-page { height: 100vh; min-height: 640px; display: flex; flex-direction: column; }
.dw-page > .dw-grid { flex: 1 1 0; min-height: 0; height: auto; }
@container (max-width: 760px) { .dw-side { order: 3; } }
@media (max-width: 760px) { .dw-who, .dw-how { flex: 1 0 100%; text-align: left; }
  .dw-head > div { max-width: 100%; } .dw-page > .dw-grid { flex: none; }
  .dw-page, body.dw { height: auto; min-height: 0; }
  .dw-fill-stream { height: 240px; } .dw-fill-tree { height: 320px; }
  .dw-fill-chart { height: 150px; } }
@media (min-width: 761px) { .dw-fill { height: 100%; } }
.dw-fill-law { height: 192px; flex: none; }
:root { color-scheme: light dark; }
.dw-who { flex: 1 1 auto; min-width: 0; }
.dw-how { flex: 0 1 330px; min-width: 150px; text-align: right; }
.dw-verbs { flex: none; }
.dw-nav { display: flex; flex-wrap: wrap; flex: none; padding: 0 9px; background: var(--dw-surface);
  border-bottom: 1px solid var(--dw-rule); font-size: 13px; line-height: 33px; }
.dw-nav b { font-weight: 700; padding: 0 9px; margin-right: 9px; color: var(--dw-text); }
.dw-nav a { white-space: nowrap; color: var(--dw-muted); text-decoration: none; padding: 0 9px;
  box-shadow: inset 0 -2px transparent; }
.dw-nav a:hover { color: var(--dw-text); }
.dw-nav a[aria-current] { color: var(--dw-text); box-shadow: inset 0 -2px var(--dw-accent); }
.dw-nav a:focus-visible { outline: 2px solid var(--dw-accent); outline-offset: -2px; }
@media (max-width: 560px) { .dw-nav b { display: none; } .dw-nav { padding: 0 8px; }
  .dw-nav a { padding: 0 6px; } }
@media (min-width: 761px) { .dw-fill-board { height: 100%; }
  .dw-board > .dw-board-band { min-height: 0; } }
@media (max-width: 760px) {
  .dw-fill-board { height: var(--dw-cell-px); flex: none !important; }
  .dw-board > .dw-board-band { flex: none !important; flex-direction: column; }
  .dw-board .dw-block { flex: none !important; } }
.dw-trouble { position: relative; padding: 0 18px; }
"""

DECODE = """
{% from macros import embed %}
{% extends base %}
{% block title %}Decode lab · Draft Workbench{% endblock %}
{% block postamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{{ sheet | safe }}</style>
{% endblock %}
{% block inner_body %}
<div class="dw dw-app"><div class="dw-lab dw-page">{{ nav | safe }}<div class="dw-grid">
  <header class="dw-head"><div class="dw-who">{{ embed(roots.head) }}</div>
    <div class="dw-verbs">{{ embed(roots.buttons) }}</div>
    <div class="dw-how">{{ embed(roots.progress) }}</div></header>
  <aside class="dw-side" aria-label="Settings">
    <div class="dw-knobs">{{ embed(roots.side) }}</div>
    <div class="dw-foot">{{ embed(roots.foot) }}</div></aside>
  <main class="dw-main">
    <section class="dw-band"><div class="dw-cell dw-stack">
      <div class="dw-trouble">{{ embed(roots.trouble) }}</div>
      <div class="dw-fill dw-fill-stream">{{ embed(roots.stream) }}</div></div></section>
    <section class="dw-band dw-middle">
      <div class="dw-cell dw-fill-tree">{{ embed(roots.tree) }}</div>
      <div class="dw-cell dw-node"><div class="dw-fill-law">{{ embed(roots.law) }}</div>
        <div class="dw-why-box">{{ embed(roots.node) }}</div></div></section>
    <section class="dw-band dw-bottom">
      <div class="dw-cell dw-fill-chart">{{ embed(roots.map) }}
        <div class="dw-corner">{{ embed(roots.picture) }}</div></div>
      <div class="dw-cell dw-fill-chart">{{ embed(roots.length) }}</div>
      <div class="dw-cell dw-block">{{ embed(roots.speed) }}</div></section>
    <section>{{ embed(roots.verdict) }}</section>
  </main>
</div></div></div>
<div>{{ embed(roots.mode) }}</div>
{{ plot_script | indent(4) }}
{% endblock %}
"""

TITLE = "Draft Workbench"
PAGES = {
    "/": "Decode",
    "/verifier": "Verifier",
    "/what-if": "What if",
    "/adapters": "Adapters",
    "/pruning": "Pruning",
    "/experts": "Experts",
    "/arena": "Arena",
}

BOARD = """
{% from macros import embed %}
{% extends base %}
{% block title %}{{ title }} · Draft Workbench{% endblock %}
{% block postamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{{ sheet | safe }}</style>
{% endblock %}
{% block inner_body %}
<div class="dw dw-app"><div class="dw-lab dw-page">{{ nav | safe }}<div class="dw-grid">
  <header class="dw-head"><div class="dw-who">{{ embed(roots.head) }}</div>
    <div class="dw-verbs">{{ embed(roots.buttons) }}</div>
    <div class="dw-how">{{ embed(roots.progress) }}</div></header>
  <aside class="dw-side" aria-label="Settings">
    <div class="dw-knobs">{{ embed(roots.side) }}</div>
    <div class="dw-foot">{{ embed(roots.foot) }}</div></aside>
  <main class="dw-main dw-board">
    {% for band in bands %}<section class="dw-band dw-board-band"
      style="flex: {{ band | map(attribute='px') | max }} 1 0px">
      {% for cell in band %}
      <div data-place="{{ cell.name }}"
        class="dw-cell {{ 'dw-block' if cell.kind == 'html' else 'dw-fill-board' }}"
        style="flex: {{ cell.share }} 1 {{ (260 * cell.share) | int }}px;
          --dw-cell-px: {{ cell.px }}px">
        {{ embed(roots['cell_' ~ cell.name]) }}</div>{% endfor %}
    </section>{% endfor %}
  </main>
</div></div></div>
<div>{{ embed(roots.mode) }}</div>
{{ plot_script | indent(4) }}
{% endblock %}
"""


def nav(here: str) -> str:
    """Links to the pages of the dashboard."""
    links = [
        f'<a href="{path}"{" aria-current=page" if path == here else ""}>{name}</a>'
        for path, name in PAGES.items()
    ]
    return f'<nav class="dw-nav" aria-label="Labs"><b>{TITLE}</b>{"".join(links)}</nav>'


def board_page(roots: dict, board: Board, here: str) -> pn.Template:
    """A page of the dashboard around the roots of a board's view."""
    made = pn.Template(BOARD)
    for name, root in roots.items():
        made.add_panel(name, root)
    made.add_variable("sheet", frame.css() + PAGE_CSS)
    made.add_variable("title", board.title)
    made.add_variable("bands", board.bands)
    made.add_variable("nav", nav(here))
    return made


def page(roots: dict) -> pn.Template:
    """A page of the dashboard around the roots of the decode lab's view."""
    made = pn.Template(DECODE)
    for name, root in roots.items():
        made.add_panel(name, root)
    made.add_variable("sheet", frame.css() + PAGE_CSS)
    made.add_variable("nav", nav("/"))
    return made
