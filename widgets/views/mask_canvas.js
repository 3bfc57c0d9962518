// A weight matrix to paint on: shades of |w|, pruned cells hatched. Brush, rectangle, lasso, arrow keys.

const MASK_CSS = `
.dw-mask_canvas { display: flex; flex-direction: column; min-height: 160px; padding: 10px 18px 8px; gap: 6px; }
.dw-mask_canvas .top { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center; }
.dw-mask_canvas .title { font-size: 11px; font-weight: 700; color: var(--dw-muted); flex: 1 1 150px; min-width: 0; }
.dw-mask_canvas .group { display: inline-flex; border: 1px solid var(--dw-edge); border-radius: 6px; overflow: hidden; }
.dw-mask_canvas button { border: 0; background: none; color: var(--dw-muted); font: inherit; font-size: 11px;
  line-height: 1; padding: 5px 8px; cursor: pointer; }
.dw-mask_canvas button + button { border-left: 1px solid var(--dw-edge); }
.dw-mask_canvas button:hover { color: var(--dw-text); }
.dw-mask_canvas button[aria-pressed="true"] { background: var(--dw-surface); color: var(--dw-text); font-weight: 700;
  box-shadow: inset 0 -2px 0 var(--dw-accent); }
.dw-mask_canvas button:focus-visible { outline: 2px solid var(--dw-accent); outline-offset: -2px; }
.dw-mask_canvas .stage { position: relative; flex: 1; min-height: 60px; cursor: crosshair; touch-action: none;
  outline: none; }
.dw-mask_canvas .stage:focus-visible { box-shadow: 0 0 0 2px var(--dw-accent); border-radius: 2px; }
.dw-mask_canvas canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.dw-mask_canvas .foot { display: flex; flex-wrap: wrap; gap: 0 16px; font-size: 11px; color: var(--dw-muted); }
.dw-mask_canvas .said { flex: 1 1 auto; min-height: 16px; color: var(--dw-text); }
.dw-mask_canvas .key { display: inline-flex; gap: 5px; align-items: center; }
.dw-mask_canvas .key i { width: 11px; height: 11px; border-radius: 2px; background: var(--dw-accent); }
.dw-mask_canvas .key i.out { background: repeating-linear-gradient(135deg, var(--dw-corrected) 0 1.2px,
  var(--dw-corrected-fill) 1.2px 3.6px); }
`;

const MASK_TOOLS = { brush: ["Brush", "b"], rectangle: ["Rectangle", "r"], lasso: ["Lasso", "l"], look: ["Look", "v"] };
const BRUSHES = [1, 3, 5, 9];
const WALK_MS = 150; // keys closer than this are one walk
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
  PageUp: [-8, 0], PageDown: [8, 0], Home: [0, -Infinity], End: [0, Infinity] };

/** Buttons with one pressed; `choose(name)` presses from outside. */
function maskButtons(label, names, chosen) {
  const group = dwElement("div", { class: "group", role: "group", "aria-label": label });
  const buttons = new Map();
  const choose = (name) => {
    for (const [key, button] of buttons) button.setAttribute("aria-pressed", String(key === name));
    chosen(name);
  };
  for (const [name, [text, hint]] of Object.entries(names)) {
    const button = dwElement("button", { type: "button", title: hint }, text);
    button.addEventListener("click", () => choose(name));
    buttons.set(name, button);
    group.append(button);
  }
  return { group, choose };
}

function render({ model, el }) {
  const root = dwRoot(el, "mask_canvas", MASK_CSS), post = dwOutbox(model, keepStrokes);
  const stage = dwElement("div", { class: "stage", tabindex: "0", role: "application" });
  const lower = dwElement("canvas", { "aria-hidden": "true" }), upper = dwElement("canvas", { "aria-hidden": "true" });
  const title = dwElement("div", { class: "title" }), said = dwElement("div", { class: "said", "aria-live": "polite" });
  const ui = { tool: "brush", keep: false, size: 1, cursor: [0, 0], stroke: null, corner: null, hover: null };
  const state = maskState(() => request()), painter = maskPainter(lower, root, state);
  let waiting = 0, selecting, walked = null, labels = { row: "row", column: "column" };

  const tools = Object.entries(MASK_TOOLS).map(([name, [text, key]]) => [name, [text, `${text} (key ${key})`]]);
  const tool = maskButtons("Tool", Object.fromEntries(tools), (name) => { ui.tool = name; ui.corner = null; request(); });
  const way = maskButtons("What painting does", { prune: ["Prune", "Painting prunes; Shift restores (key x)"],
    restore: ["Restore", "Painting restores; Shift prunes (key x)"] }, (name) => { ui.keep = name === "restore"; });
  const sizes = BRUSHES.map((n) => [n, [String(n), `Brush of ${n} × ${n} cells (keys + and -)`]]);
  const brush = maskButtons("Brush size in cells", Object.fromEntries(sizes), (n) => { ui.size = Number(n); request(); });
  stage.append(lower, upper);
  root.append(dwElement("div", { class: "top" }, title, tool.group, brush.group, way.group), stage,
    dwElement("div", { class: "foot" }, said,
      dwElement("span", { class: "key" }, dwElement("i"), "kept, stronger = larger"),
      dwElement("span", { class: "key" }, dwElement("i", { class: "out" }), "pruned")));

  const size = () => [stage.clientWidth, Math.max(1, stage.clientHeight - STRIP_PX)];
  const request = () => { if (!waiting) waiting = requestAnimationFrame(draw); };
  const clamp = ([row, column]) => [Math.min(state.rows - 1, Math.max(0, row)), Math.min(state.columns - 1, Math.max(0, column))];

  function draw() {
    waiting = 0;
    const [width, height] = size();
    if (!width) return;
    painter.draw(width, height);
    const scale = devicePixelRatio, pen = upper.getContext("2d");
    upper.width = lower.width; upper.height = lower.height;
    pen.scale(scale, scale);
    if (!state.rows || !state.columns) return;
    const wide = width / state.columns, tall = height / state.rows;
    const frame = ([r0, c0], [r1, c1], colour, grow = 0) => {
      pen.lineWidth = 2; pen.strokeStyle = colour;
      pen.strokeRect(c0 * wide - grow, r0 * tall - grow, (c1 - c0 + 1) * wide + 2 * grow, (r1 - r0 + 1) * tall + 2 * grow);
    };
    const corners = (a, b) => [[Math.min(a[0], b[0]), Math.min(a[1], b[1])], [Math.max(a[0], b[0]), Math.max(a[1], b[1])]];
    if (ui.hover && !ui.stroke && ui.tool === "brush") {
      const half = (ui.size - 1) / 2;
      frame(clamp(ui.hover.map((v) => v - half)), clamp(ui.hover.map((v) => v + half)), painter.colour("text"));
    }
    const from = ui.corner || (ui.stroke && ui.tool === "rectangle" ? ui.stroke.from : null);
    if (from) frame(...corners(from, ui.corner ? ui.cursor : ui.stroke.to), painter.colour("text"));
    if (ui.stroke && ui.stroke.path) {
      pen.beginPath();
      ui.stroke.path.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.closePath(); pen.setLineDash([4, 3]); pen.lineWidth = 2; pen.strokeStyle = painter.colour("text"); pen.stroke();
      pen.setLineDash([]);
    }
    frame(ui.cursor, ui.cursor, painter.colour("ground"), 2);
    frame(ui.cursor, ui.cursor, painter.colour("select"));
  }

  // ---- cells -------------------------------------------------------------------------------------

  const stamp = ([row, column], into) => {
    const half = (ui.size - 1) / 2;
    for (let r = Math.max(0, row - half); r <= Math.min(state.rows - 1, row + half); r += 1) {
      for (let c = Math.max(0, column - half); c <= Math.min(state.columns - 1, column + half); c += 1) {
        into.add(r * state.columns + c);
      }
    }
  };
  const block = (a, b) => {
    const cells = new Set();
    for (let r = Math.min(a[0], b[0]); r <= Math.max(a[0], b[0]); r += 1) {
      for (let c = Math.min(a[1], b[1]); c <= Math.max(a[1], b[1]); c += 1) cells.add(r * state.columns + c);
    }
    return cells;
  };
  const lassoed = (path) => {
    const [width, height] = size(), cells = new Set();
    for (let cell = 0; cell < state.rows * state.columns; cell += 1) {
      const x = ((cell % state.columns) + 0.5) * (width / state.columns);
      const y = (Math.floor(cell / state.columns) + 0.5) * (height / state.rows);
      if (insidePolygon(path, x, y)) cells.add(cell);
    }
    return cells;
  };
  /** Tell Python of the cells that are not so already; nothing to say, no event. A walk ends first. */
  const finish = (cells, keep) => {
    arrive();
    const share = keep ? 255 : 0, changed = [...cells].filter((cell) => state.kept[cell] !== share).sort((a, b) => a - b);
    if (changed.length) {
      state.paint(changed, share);
      post({ kind: "paint", keep, cells: changed.map((cell) => [Math.floor(cell / state.columns), cell % state.columns]) });
    }
    said.textContent = `${changed.length} ${changed.length === 1 ? "cell" : "cells"} ${keep ? "restored" : "pruned"}`;
    request();
  };
  const range = (edges, at) => {
    if (!edges || edges[at + 1] - edges[at] <= 1) return `${edges ? edges[at] : at}`;
    return `${edges[at]}–${edges[at + 1] - 1}`;
  };
  const tell = ([row, column]) => {
    const cell = row * state.columns + column, kept = state.kept[cell], data = model.get("data");
    const share = kept === 255 ? "kept" : kept === 0 ? "pruned" : `${Math.round((100 * kept) / 255)} % kept`;
    said.textContent = `${labels.row} ${range(data.row_edges, row)}, ${labels.column} ${range(data.column_edges, column)}`
      + ` · ${share} · |w| ${Math.round((100 * (state.values[cell] || 0)) / 255)} % of full shade`;
  };
  /** Where a walk ended is told once, before anything that is done there. */
  const arrive = () => {
    clearTimeout(selecting);
    if (walked) post({ kind: "select", row: walked[0], column: walked[1] });
    walked = null;
  };
  const select = (cell, soon) => {
    walked = ui.cursor = clamp(cell);
    tell(ui.cursor);
    clearTimeout(selecting);
    if (soon) arrive(); else selecting = setTimeout(arrive, WALK_MS);
    request();
  };

  // ---- pointer -----------------------------------------------------------------------------------

  const where = (event) => {
    const box = stage.getBoundingClientRect(), [width, height] = size();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const cell = clamp([Math.floor((y / height) * state.rows), Math.floor((x / width) * state.columns)]);
    return { x, y, cell, strip: y > height };
  };
  const extend = (stroke, to) => {
    if (stroke.column) stroke.cells = new Set([...stroke.cells, ...block([0, stroke.to[1]], [state.rows - 1, to[1]])]);
    else for (const cell of cellsBetween(stroke.to, to)) stamp(cell, stroke.cells);
    const share = stroke.keep ? 255 : 0;
    for (const cell of stroke.cells) state.kept[cell] = share;
  };
  stage.addEventListener("pointerdown", (event) => {
    if (!state.rows || !state.columns || event.button) return;
    const at = where(event);
    stage.focus({ preventScroll: true });
    event.preventDefault();
    if (ui.tool === "look") { select(at.cell, true); return; }
    stage.setPointerCapture(event.pointerId);
    ui.cursor = at.cell;
    ui.corner = null;
    ui.stroke = { keep: ui.keep !== event.shiftKey, from: at.cell, to: at.cell, cells: new Set(), column: at.strip,
      path: ui.tool === "lasso" && !at.strip ? [[at.x, at.y]] : null };
    if (ui.tool === "brush" || at.strip) extend(ui.stroke, at.cell);
    request();
  });
  stage.addEventListener("pointermove", (event) => {
    if (!state.rows || !state.columns) return;
    const at = where(event), stroke = ui.stroke;
    ui.hover = at.cell;
    if (!stroke) { tell(at.cell); request(); return; }
    if (stroke.path) stroke.path.push([at.x, at.y]);
    else if (ui.tool === "brush" || stroke.column) extend(stroke, at.cell);
    stroke.to = at.cell;
    request();
  });
  stage.addEventListener("pointerleave", () => { ui.hover = null; request(); });
  stage.addEventListener("pointerup", () => {
    const stroke = ui.stroke;
    if (!stroke) return;
    ui.stroke = null;
    ui.cursor = stroke.to;
    state.relay();
    if (stroke.path) finish(lassoed(stroke.path), stroke.keep);
    else if (ui.tool === "brush" || stroke.column) finish(stroke.cells, stroke.keep);
    else finish(block(stroke.from, stroke.to), stroke.keep);
  });
  const cancel = () => { ui.stroke = ui.corner = null; state.relay(); request(); };
  stage.addEventListener("pointercancel", cancel);

  // ---- keys --------------------------------------------------------------------------------------

  const press = (event) => {
    const keep = ui.keep !== event.shiftKey;
    if (ui.tool === "look") select(ui.cursor, true);
    else if (ui.tool === "brush") {
      const cells = new Set();
      stamp(ui.cursor, cells);
      finish(cells, keep);
    } else if (ui.corner) {
      finish(block(ui.corner, ui.cursor), keep);
      ui.corner = null;
    } else {
      ui.corner = ui.cursor;
      said.textContent = "first corner; move and press Space again";
      request();
    }
  };
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !state.rows || !state.columns) return;
    const move = MOVES[event.key], step = { "+": 1, "=": 1, "-": -1 }[event.key];
    const named = Object.entries(MASK_TOOLS).find(([, [, key]]) => key === event.key);
    if (move) select([ui.cursor[0] + move[0], ui.cursor[1] + move[1]], false);
    else if (event.key === " " || event.key === "Enter") press(event);
    else if (event.key === "Escape") cancel();
    else if (event.key === "x") way.choose(ui.keep ? "prune" : "restore");
    else if (step) brush.choose(String(BRUSHES[Math.min(3, Math.max(0, BRUSHES.indexOf(ui.size) + step))]));
    else if (named) tool.choose(named[0]);
    else return;
    event.preventDefault();
  });

  // ---- from Python -------------------------------------------------------------------------------

  const take = () => {
    const data = model.get("data") || {};
    state.read(data);
    labels = { row: data.row_label || "row", column: data.column_label || "column" };
    title.textContent = data.title || "Weights";
    ui.cursor = state.rows && state.columns ? clamp(ui.cursor) : [0, 0];
    if (ui.stroke && ui.stroke.cells.size) for (const cell of ui.stroke.cells) state.kept[cell] = ui.stroke.keep ? 255 : 0;
    stage.setAttribute("aria-label", `${title.textContent}: ${state.rows} by ${state.columns} cells. Arrow keys move,`
      + " Space paints, Shift+Space does the opposite, x swaps pruning and restoring.");
    if (!state.rows || !state.columns) said.textContent = "no weights yet";
    else if (said.textContent === "no weights yet" || !said.textContent) {
      said.textContent = `${labels.row}s down, ${labels.column}s across · bars: norm of each`;
    }
    request();
  };
  tool.choose("brush"); brush.choose("1"); way.choose("prune");
  const silent = dwListen(model, { data: take });
  const unfollow = dwFollow(model, el, root, () => { painter.dress(); request(); });
  painter.dress();
  const resized = new ResizeObserver(request);
  resized.observe(stage);
  take();
  return () => {
    silent(); unfollow(); resized.disconnect(); state.stop(); clearTimeout(selecting); cancelAnimationFrame(waiting);
  };
}

export default { render };
