// A plotly figure without FigureWidget: plotly.js comes once a page from PlotlyLib, clicks go out.

const PLOT_CSS = `
.dw-plot { position: relative; min-height: 90px; }
.dw-plot .canvas { position: absolute; inset: 0; }
.dw-plot .waiting { padding: 12px 18px; color: var(--dw-muted); }
.dw-plot .save { position: absolute; top: 7px; right: 12px; display: flex; gap: 2px; opacity: 0;
  transition: opacity .12s; z-index: 2; }
.dw-plot:hover .save, .dw-plot:focus-within .save { opacity: 1; }
.dw-plot .save button { border: 0; border-radius: 5px; background: var(--dw-surface); cursor: pointer;
  color: var(--dw-muted); font-family: inherit; font-size: 10px; font-weight: 600; line-height: 1;
  padding: 5px 6px; }
.dw-plot .save button:hover { color: var(--dw-text); }
.dw-plot .save button:focus-visible { outline: 2px solid var(--dw-accent); }
`;

/**
 * Resolves when it is this chart's turn: charts are drawn one a task, because the page must answer
 * in between. JupyterLab gives up on a view that does not start within two seconds.
 */
function dwTurn() {
  const before = globalThis.__dwTurn || Promise.resolve();
  globalThis.__dwTurn = before.then(() => new Promise((done) => setTimeout(done)));
  return globalThis.__dwTurn;
}

/** The same figure with every light colour replaced by its dark twin. */
function recolour(value, mode) {
  if (mode !== "dark") return value;
  if (typeof value === "string") return DW_SWAP[value] ?? value;
  if (Array.isArray(value)) return value.map((item) => recolour(item, mode));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolour(item, mode)]));
  }
  return value;
}

function render({ model, el }) {
  const root = dwRoot(el, "plot", PLOT_CSS);
  const canvas = dwElement("div", { class: "canvas" });
  const waiting = dwElement("div", { class: "waiting" }, "The chart appears once plotly.js has arrived.");
  const save = dwElement("div", { class: "save" });
  root.append(canvas, waiting, save);
  const post = dwOutbox(model);
  const state = { mode: "light", listening: false, queue: Promise.resolve(), waiting: false, gone: false, wide: 0 };

  /** One drawing at a time, and at most one more waiting: it will read the newest figure. */
  function draw() {
    if (state.waiting) return;
    state.waiting = true;
    state.queue = state.queue.then(dwTurn).then(() => { state.waiting = false; return drawNow(); }).catch((error) => {
      waiting.hidden = false;
      waiting.textContent = `The chart could not be drawn: ${error.message || error}`;
    });
  }

  /** Python lays the figure out for this width; said once a change, as a second view may differ. */
  function tellWidth() {
    const wide = 20 * Math.floor(canvas.clientWidth / 20);
    if (wide === state.wide) return;
    state.wide = wide;
    model.set("width_px", wide);
    model.save_changes();
  }

  async function drawNow() {
    const Plotly = globalThis.__dwPlotly, figure = model.get("fig") || {};
    if (!Plotly || !figure.data || state.gone || !canvas.clientWidth) return;
    tellWidth();
    waiting.hidden = true;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", titleOf(figure));
    const shown = recolour(JSON.parse(JSON.stringify(figure)), state.mode);
    const layout = { ...shown.layout, autosize: false, width: canvas.clientWidth, height: canvas.clientHeight };
    const config = { ...shown.config, responsive: false, displayModeBar: false };
    await Plotly.react(canvas, shown.data, layout, config);
    if (state.listening) return;
    state.listening = true;
    canvas.on("plotly_click", (event) => {
      const point = event.points[0], meta = (model.get("fig").layout || {}).meta || {};
      post({ kind: "point", figure: meta.figure || "", x: point.x ?? null, y: point.y ?? null,
        customdata: point.customdata ?? null });
    });
  }

  function titleOf(figure) {
    const title = ((figure.layout || {}).title || {}).text || "chart";
    return title.replaceAll(/<[^>]*>/g, "").replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
  }

  function nameOf() {
    return (((model.get("fig") || {}).layout || {}).meta || {}).figure || "figure";
  }

  for (const format of ["png", "svg"]) {
    const title = `Save this picture as ${format.toUpperCase()}`;
    const button = dwElement("button", { title, "aria-label": title }, format.toUpperCase());
    button.addEventListener("click", () => globalThis.__dwPlotly && globalThis.__dwPlotly.downloadImage(canvas,
      { format, scale: format === "png" ? 3 : 1, filename: nameOf() }));
    save.append(button);
  }

  const silent = dwListen(model, { fig: draw });
  const unfollow = dwFollow(model, el, root, (mode) => { state.mode = mode; draw(); });
  const sizes = new ResizeObserver(draw);
  sizes.observe(canvas);
  globalThis.addEventListener("dw-plotly", draw);
  draw();
  return () => {
    state.gone = true;
    silent();
    unfollow();
    sizes.disconnect();
    globalThis.removeEventListener("dw-plotly", draw);
    if (globalThis.__dwPlotly) globalThis.__dwPlotly.purge(canvas);
  };
}

export default { render };
