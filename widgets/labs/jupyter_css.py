"""How ipywidgets' own controls take the look of the frame inside ``.dw-in-jupyter``."""

JUPYTER_CSS = """
.dw-in-jupyter { border: 1px solid var(--dw-rule); overflow: hidden; }
.dw-in-jupyter .jupyter-widgets, .dw-in-jupyter .widget-html-content { color: var(--dw-text);
  font-family: var(--dw-sans); font-size: 13px; line-height: 1.4; margin: 0; }
.dw-in-jupyter .widget-html, .dw-in-jupyter .jupyter-widgets.widget-html { height: auto;
  min-height: 0; align-self: auto; overflow: visible; }
.dw-in-jupyter .dw-grid { grid-template-rows: auto auto; overflow: visible; height: auto; }
.dw-in-jupyter .dw-head { min-height: 50px; padding: 8px 18px; overflow: visible; }
.dw-in-jupyter .dw-head > :first-child { flex: 1 1 auto; min-width: 0; }
.dw-in-jupyter .dw-head > :last-child { flex: 0 1 auto; min-width: 0; overflow: hidden; }
.dw-in-jupyter .dw-side { max-height: 800px; }
.dw-in-jupyter .dw-knobs { display: flex; gap: 2px; }
.dw-in-jupyter :is(.dw-knobs, .dw-foot) > * { flex: none; }
.dw-in-jupyter .dw-knobs > .widget-dropdown { height: 28px; }
.dw-in-jupyter .dw-foot { gap: 6px; }
.dw-in-jupyter .dw-side h3.dw-title { margin: 9px 0 3px; line-height: 1.4; }
.dw-in-jupyter .dw-main { grid-template-rows: auto auto auto auto; overflow: hidden; }
.dw-in-jupyter .dw-band { overflow: hidden; }
.dw-in-jupyter .dw-form { gap: 0; overflow: hidden; }
.dw-in-jupyter .dw-row { display: flex; align-items: center; gap: 6px; min-height: 28px;
  overflow: hidden; }
.dw-in-jupyter .dw-row > .dw-label { flex: 0 0 88px; }
.dw-in-jupyter .dw-row > .dw-readout { flex: 0 0 34px; text-align: right; }
.dw-in-jupyter .dw-row.dw-stacked { flex-direction: column; align-items: stretch; gap: 2px; }
.dw-in-jupyter .dw-row.dw-stacked > * { flex: none; }
.dw-in-jupyter .dw-line { gap: 6px; overflow: hidden; align-items: center; }
.dw-in-jupyter .dw-board-knobs { flex-wrap: wrap; }
.dw-in-jupyter .dw-board-knobs .dw-button { padding: 0 8px; }
.dw-in-jupyter .dw-board > .dw-board-band { flex: none; }
.dw-in-jupyter .dw-line > .widget-dropdown { min-width: 0; }
.dw-in-jupyter :is(select, input[type=text], input[type=number], textarea) {
  background-color: var(--dw-paper) !important; color: var(--dw-text) !important;
  border: 1px solid var(--dw-edge) !important; border-radius: 6px; font: 13px/1.4 var(--dw-sans);
  padding: 2px 8px; min-width: 0; }
.dw-in-jupyter :is(select, input[type=text], input[type=number]) { height: 27px; }
.dw-in-jupyter :is(select) { appearance: auto; background-image: none !important; }
.dw-in-jupyter .dw-side .widget-textarea textarea { font: 12px/1.5 var(--dw-mono); }
.dw-in-jupyter .dw-row > :is(.widget-text, .widget-hslider, .widget-dropdown) { min-width: 0;
  flex: 1 1 0; height: 27px; }
.dw-in-jupyter .dw-row > .widget-text input { width: 100%; flex: 1 1 0; }
.dw-in-jupyter :is(select, input, textarea, button):focus-visible {
  outline: 2px solid var(--dw-accent); outline-offset: 1px; }
.dw-in-jupyter .dw-button { border: 1px solid var(--dw-edge); border-radius: 7px; padding: 0 11px;
  font: 500 13px/28px var(--dw-sans); height: 30px; background: var(--dw-paper); flex: none;
  color: var(--dw-text); overflow: visible; box-shadow: none; width: auto; }
.dw-in-jupyter .dw-button:hover:enabled { background: var(--dw-surface); box-shadow: none; }
.dw-in-jupyter .dw-button.dw-primary { background: var(--dw-accent); color: var(--dw-paper);
  border-color: var(--dw-accent); }
.dw-in-jupyter .dw-button.dw-primary:enabled:is(:hover, :focus, :active) {
  background: var(--dw-accent); color: var(--dw-paper); filter: brightness(1.08); }
.dw-in-jupyter .dw-button:disabled { opacity: .45; }
.dw-in-jupyter .dw-button.dw-corner { height: 22px; padding: 0 8px;
  font: 500 11.5px/20px var(--dw-sans); }
.dw-in-jupyter .noUi-target { background: var(--dw-edge); border: 0; height: 4px; }
.dw-in-jupyter .noUi-connect { background: var(--dw-accent); }
.dw-in-jupyter .noUi-horizontal .noUi-handle { background: var(--dw-paper); width: 14px;
  height: 14px; top: -5px; right: -7px; border: 2px solid var(--dw-accent); border-radius: 50%; }
.dw-in-jupyter .slider-container { margin: 0 8px 0 7px; }
.dw-in-jupyter .dw-chips { gap: 3px; align-items: center; overflow: hidden; padding: 2px;
  border: 1px solid var(--dw-edge); border-radius: 6px; background: var(--dw-paper); }
.dw-in-jupyter .dw-chip { background: var(--dw-surface); color: var(--dw-text); width: auto;
  border: 1px solid var(--dw-edge); border-radius: 5px; font: 12px/20px var(--dw-sans);
  padding: 0 5px; height: 22px; margin: 0; box-shadow: none; }
.dw-in-jupyter .dw-adder { flex: 1 1 60px; width: 60px; min-width: 60px; height: 22px; margin: 0; }
.dw-in-jupyter .dw-adder input[type=text] { border: 0 !important; height: 22px; padding: 0 4px;
  font-size: 12px; }
.dw-in-jupyter .dw-block :is(.widget-html, .widget-html-content) { min-width: 0;
  max-width: 100%; }
.dw-in-jupyter .dw-link { color: var(--dw-accent); }
@container (max-width: 1020px) {
  .dw-in-jupyter .dw-grid { grid-template-columns: 218px minmax(0, 1fr); }
  .dw-in-jupyter .dw-grid.dw-bare { grid-template-columns: 0 minmax(0, 1fr); }
  .dw-in-jupyter .dw-middle { grid-template-columns: minmax(0, 1fr) 252px; }
  .dw-in-jupyter .dw-bottom { grid-template-columns: minmax(0, 1fr) minmax(0, 186px) 252px; }
  .dw-in-jupyter :is(.dw-knobs, .dw-foot, .dw-head) { padding-left: 12px; padding-right: 12px; }
  .dw-in-jupyter .dw-track { width: 70px; }
}
@container (max-width: 760px) {
  .dw-in-jupyter .dw-head > :first-child { flex: 1 0 100%; }
  .dw-in-jupyter .dw-side { max-height: none; order: 3; }
  .dw-in-jupyter .dw-block { max-height: none !important; }
}
"""
