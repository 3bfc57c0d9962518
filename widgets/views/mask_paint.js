// What a painted mask is (the kernel's data with fresh strokes on top) and how it looks on a canvas.

const STRIP_PX = 22; // under the weights: the norm of each column
const STROKE_WAIT_MS = 2500; // so long a stroke outlives data that does not know of it yet

/** The latest events that fit, at least four of them: a stroke may hold every cell. */
function keepStrokes(events, most = 40000) {
  let room = most, from = events.length;
  while (from > 0 && events.length - from < 100) {
    room -= (events[from - 1].cells || [0]).length;
    if (room < 0 && events.length - from >= 4) break;
    from -= 1;
  }
  return events.slice(from);
}

function hex(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

const mixed = (one, other, share) => one.map((value, i) => value + (other[i] - value) * share);

/** The cells from one to the other, both inside. */
function cellsBetween([r0, c0], [r1, c1]) {
  const steps = Math.max(Math.abs(r1 - r0), Math.abs(c1 - c0), 1);
  return Array.from({ length: steps + 1 }, (_, i) => [
    Math.round(r0 + ((r1 - r0) * i) / steps), Math.round(c0 + ((c1 - c0) * i) / steps)]);
}

/** Whether a point lies in a closed polygon, by the even-odd rule. */
function insidePolygon(points, x, y) {
  let odd = false;
  for (let i = 0, j = points.length - 1; i < points.length; j = i, i += 1) {
    const [xi, yi] = points[i], [xj, yj] = points[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
  }
  return odd;
}

/** What is shown: the kernel's data with the strokes that it has not answered yet on top. */
function maskState(settled) {
  const state = { rows: 0, columns: 0, values: [], kept: new Uint8Array(0), base: new Uint8Array(0), strip: [],
    waiting: [] };
  let timer;
  const lay = () => {
    state.kept = Uint8Array.from(state.base);
    for (const { cells, share } of state.waiting) for (const cell of cells) state.kept[cell] = share;
  };
  state.read = (data) => {
    const kept = data.kept || [], most = kept.reduce((high, value) => Math.max(high, value), 0);
    const scale = most > 1 ? 1 : 255; // 0 and 1 are said as well as shares up to 255
    const same = state.rows === data.rows && state.columns === data.columns && state.of === data.title;
    Object.assign(state, { rows: data.rows || 0, columns: data.columns || 0, of: data.title, values: data.values || [],
      strip: data.strip || [], base: Uint8Array.from(kept, (value) => value * scale) });
    state.waiting = same ? state.waiting.filter((stroke) => stroke.cells.some((c) => state.base[c] !== stroke.share)) : [];
    lay();
  };
  state.paint = (cells, share) => {
    state.waiting.push({ cells, share });
    for (const cell of cells) state.kept[cell] = share;
    clearTimeout(timer);
    timer = setTimeout(() => { state.waiting = []; lay(); settled(); }, STROKE_WAIT_MS);
  };
  state.relay = lay;
  state.stop = () => clearTimeout(timer);
  return state;
}

/** Draws the state into the lower of the two canvases. */
function maskPainter(canvas, root, state) {
  const small = dwElement("canvas"), out = dwElement("canvas"), veil = dwElement("canvas");
  let colours = {};
  const sized = (target, width, height) => {
    if (target.width !== width) target.width = width;
    if (target.height !== height) target.height = height;
    return target.getContext("2d");
  };
  const shade = (pixel, into, value, share) => {
    const there = mixed(colours.surface, colours.accent, value / 255);
    const gone = mixed(colours.paper, colours.corrected, 0.1 + (0.35 * value) / 255);
    into.set(mixed(gone, there, share / 255), pixel * 4);
    into[pixel * 4 + 3] = 255;
  };
  const hatch = (context) => {
    const tile = dwElement("canvas"), side = Math.round(5 * devicePixelRatio), pen = sized(tile, side, side);
    pen.strokeStyle = colours.line;
    pen.lineWidth = devicePixelRatio;
    for (const shift of [-side, 0, side]) {
      pen.beginPath(); pen.moveTo(shift, side); pen.lineTo(shift + side, 0); pen.stroke();
    }
    return context.createPattern(tile, "repeat");
  };
  let dressed = false;
  return {
    dress() {
      const look = getComputedStyle(root), of = (role) => look.getPropertyValue(`--dw-${role}`).trim() || "#888888";
      dressed = root.isConnected && Boolean(look.getPropertyValue("--dw-accent").trim()); // no colours off the page
      colours = { paper: hex(of("paper")), surface: hex(of("surface")), accent: hex(of("accent")),
        corrected: hex(of("corrected")), line: of("corrected"), bar: of("accent-soft"), text: of("text"),
        select: of("select"), ground: of("paper") };
    },
    colour: (role) => colours[role],
    draw(width, height) {
      const { rows, columns } = state, scale = devicePixelRatio;
      if (!dressed) this.dress();
      const context = sized(canvas, Math.round(width * scale), Math.round((height + STRIP_PX) * scale));
      context.clearRect(0, 0, canvas.width, canvas.height);
      if (!rows || !columns) return;
      const cells = new ImageData(columns, rows), gone = new ImageData(columns, rows);
      for (let cell = 0; cell < rows * columns; cell += 1) {
        shade(cell, cells.data, state.values[cell] || 0, state.kept[cell]);
        gone.data[cell * 4 + 3] = state.kept[cell] < 128 ? 255 : 0;
      }
      sized(small, columns, rows).putImageData(cells, 0, 0);
      sized(out, columns, rows).putImageData(gone, 0, 0);
      const wide = Math.round(width * scale), tall = Math.round(height * scale), pen = sized(veil, wide, tall);
      context.imageSmoothingEnabled = pen.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, wide, tall);
      pen.globalCompositeOperation = "copy";
      pen.drawImage(out, 0, 0, wide, tall);
      pen.globalCompositeOperation = "source-in";
      pen.fillStyle = hatch(pen);
      pen.fillRect(0, 0, wide, tall);
      context.globalAlpha = 0.75;
      context.drawImage(veil, 0, 0);
      context.globalAlpha = 1;
      const most = Math.max(...state.strip, 1e-12), room = (STRIP_PX - 5) * scale;
      context.fillStyle = colours.bar;
      state.strip.forEach((norm, column) => {
        const high = (room * norm) / most, left = (wide * column) / columns;
        context.fillRect(left, tall + 4 * scale, Math.max(1, wide / columns - (wide / columns > 4 ? scale : 0)), high);
      });
    },
  };
}
