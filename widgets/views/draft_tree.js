// The draft tree of one round as SVG: fate by fill, border, dash and strike; click or arrows walk it.

const TREE_CSS = `
.dw-draft_tree { display: flex; flex-direction: column; min-height: 150px; }
.dw-draft_tree .head { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 12px;
  padding: 10px 18px 4px; }
.dw-draft_tree .title { font-size: 11px; font-weight: 700; color: var(--dw-muted); white-space: nowrap; }
.dw-draft_tree .sentence { font-size: 12px; color: var(--dw-muted); margin-right: auto;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; min-width: 0; flex: 0 1 auto; }
.dw-draft_tree .scrub { display: flex; align-items: center; gap: 4px; white-space: nowrap;
  color: var(--dw-muted); font-size: 12px; }
.dw-draft_tree .scrub output { min-width: 104px; text-align: center; }
.dw-draft_tree button { border: 0; background: none; color: inherit; font: inherit; font-size: 16px;
  line-height: 1; width: 24px; height: 24px; border-radius: 6px; cursor: pointer; padding: 0 0 2px; }
.dw-draft_tree button:hover:enabled { background: var(--dw-surface); color: var(--dw-text); }
.dw-draft_tree button:disabled { opacity: .35; cursor: default; }
.dw-draft_tree input { width: 96px; margin: 0 4px; accent-color: var(--dw-accent); height: 16px; }
.dw-draft_tree :is(button, input):focus-visible { outline: 2px solid var(--dw-accent); outline-offset: 1px; }
.dw-draft_tree .stage { flex: 1; min-height: 0; overflow: auto; scrollbar-width: thin;
  scrollbar-color: var(--dw-edge) transparent; }
.dw-draft_tree svg { display: block; user-select: none; }
.dw-draft_tree .edge { fill: none; stroke: var(--dw-edge); stroke-linecap: butt; }
.dw-draft_tree .edge.accepted { stroke: var(--dw-accepted); }
.dw-draft_tree .edge.rejected { stroke: var(--dw-corrected); stroke-dasharray: 5 3; }
.dw-draft_tree .node { cursor: pointer; outline: none; }
.dw-draft_tree .node rect { fill: var(--dw-paper); stroke: var(--dw-neutral); stroke-width: 1.2; }
.dw-draft_tree .node text { font-family: MONO; fill: var(--dw-muted); text-anchor: middle;
  dominant-baseline: central; }
.dw-draft_tree .node.root rect { fill: var(--dw-surface); stroke: var(--dw-text); }
.dw-draft_tree .node.accepted rect { fill: var(--dw-accepted-fill); stroke: var(--dw-accepted); }
.dw-draft_tree .node.rejected rect { fill: var(--dw-corrected-fill); stroke: var(--dw-corrected); }
.dw-draft_tree .node:is(.accepted, .rejected, .root) text { fill: var(--dw-text); }
.dw-draft_tree .strike { stroke: var(--dw-corrected); stroke-width: 1.2; pointer-events: none; }
.dw-draft_tree .hint { padding: 6px 22px; color: var(--dw-muted); }
.dw-draft_tree .node.untested rect { stroke-dasharray: 3 2.4; }
.dw-draft_tree .node:hover rect { stroke: var(--dw-text); }
.dw-draft_tree .node.chosen rect { stroke: var(--dw-select); stroke-width: 2.6; stroke-dasharray: none; }
.dw-draft_tree .node:focus-visible rect { stroke: var(--dw-text); stroke-width: 2.6; }
@media (max-width: 480px) { .dw-draft_tree .head { padding: 10px 14px 4px; }
  .dw-draft_tree .sentence { order: 3; flex-basis: 100%; } .dw-draft_tree .title { margin-right: auto; } }
`.replaceAll("MONO", DW_MONO);

const SVG_NS = "http://www.w3.org/2000/svg";

function svgElement(tag, attributes, ...children) {
  const node = document.createElementNS(SVG_NS, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Sizes that fit the box: levels share the width, lanes the height, until type would get too small. */
function measure(data, width, height) {
  const levels = (data.depth || 0) + 1, lanes = data.lanes || 1, side = width < 480 ? 12 : 22;
  const level = Math.max(62, Math.min(150, (width - 2 * side) / Math.max(levels - 0.38, 1)));
  const lane = Math.max(17, Math.min(34, (height - 20) / lanes));
  const node = { w: Math.max(46, Math.min(78, level * 0.62)), h: Math.min(23, lane - 3.5) };
  const type = Math.max(9.5, Math.min(12, node.h * 0.56));
  const full = { w: 2 * side + (levels - 1) * level + node.w, h: lanes * lane + 12 };
  const top = Math.max(6, (height - full.h) / 2) + lane / 2;
  return { level, lane, node, type, side, top, width: Math.max(width, full.w), height: Math.max(height, full.h + 4) };
}

function shorten(label, width, type) {
  const most = Math.max(2, Math.floor((width - 8) / (type * 0.605)));
  const letters = [...label];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : label;
}

function edgePath(size, parent, child) {
  const x0 = parent.x + size.node.w, x1 = child.x, middle = (x0 + x1) / 2;
  return `M${x0},${parent.y} C${middle},${parent.y} ${middle},${child.y} ${x1},${child.y}`;
}

function edgeWidth(node) {
  if (node.fate === "accepted") return 3 + 2.4 * node.weight;
  return node.fate === "rejected" ? 2.4 : 1 + 3.6 * node.weight;
}

/** The node that an arrow key leads to: parent, first child (the kept one), neighbours of a level. */
function walkTo(nodes, at, key) {
  const depth = (i) => (i < 0 ? 0 : nodes[i].x);
  if (key === "ArrowLeft") return at < 0 ? -1 : nodes[at].parent;
  if (key === "ArrowRight") {
    const below = nodes.map((node, i) => i).filter((i) => nodes[i].parent === at);
    const kept = below.find((i) => nodes[i].fate === "accepted");
    return kept ?? below[0] ?? at;
  }
  const level = nodes.map((node, i) => i).filter((i) => depth(i) === depth(at))
    .sort((a, b) => nodes[a].y - nodes[b].y);
  const place = level.indexOf(at) + (key === "ArrowDown" ? 1 : -1);
  return at < 0 ? at : level[Math.max(0, Math.min(level.length - 1, place))];
}

function render({ model, el }) {
  const root = dwRoot(el, "draft_tree", TREE_CSS);
  const sentence = dwElement("span", { class: "sentence" });
  const back = dwElement("button", { "aria-label": "Previous round", title: "previous round, key [" }, "‹");
  const next = dwElement("button", { "aria-label": "Next round", title: "next round, key ]" }, "›");
  const label = dwElement("output", {});
  const slider = dwElement("input", { type: "range", min: "1", step: "1", "aria-label": "Round" });
  const stage = dwElement("div", { class: "stage" });
  root.append(dwElement("div", { class: "head" },
    dwElement("span", { class: "title" }, "Draft tree"), sentence,
    dwElement("div", { class: "scrub" }, slider, back, label, next)), stage);
  const post = dwOutbox(model);
  const state = { round: -1, node: -1, groups: [] };
  const field = dwFields(model);

  const wishedRound = dwWish(() => drawHead());
  const wishedNode = dwWish(() => choose(chosenNode(), false));
  const shownRound = () => wishedRound.or(state.round);
  const rounds = () => model.get("round_count") || field("data").round_count || 0;

  /** The kernel's selection, or a newer one made here in the round that is drawn. */
  function chosenNode() {
    const wish = wishedNode.or(null), count = (field("data").nodes || []).length;
    const node = wish && wish.round === state.round ? wish.node : model.get("selected");
    return Math.min(node, count - 1);
  }

  function drawHead() {
    const count = rounds(), round = shownRound();
    label.textContent = count ? `round ${round + 1} of ${count}` : "no round yet";
    back.disabled = round <= 0;
    next.disabled = round >= count - 1;
    slider.hidden = count < 2;
    slider.max = String(Math.max(1, count));
    slider.value = String(round + 1);
    slider.setAttribute("aria-valuetext", label.textContent);
  }

  function draw() {
    const data = field("data"), had = stage.contains(root.getRootNode().activeElement);
    const nodes = data.nodes || [];
    state.round = data.round ?? -1;
    sentence.textContent = sentence.title = data.sentence || "";
    drawHead();
    const size = measure(data, stage.clientWidth || 600, stage.clientHeight || 300);
    const place = (x, y) => ({ x: size.side + x * size.level, y: size.top + y * size.lane });
    const svg = svgElement("svg", { width: size.width, height: size.height, role: "tree",
      "aria-label": `Draft tree, ${data.sentence || "empty"}` });
    state.groups = [];
    if (state.round >= 0) {
      const spots = nodes.map((node) => place(node.x, node.y)), origin = place(0, data.root.y);
      const order = { untested: 0, rejected: 1, accepted: 2 };
      nodes.map((node, i) => i).sort((a, b) => order[nodes[a].fate] - order[nodes[b].fate]).forEach((i) => {
        const above = nodes[i].parent < 0 ? origin : spots[nodes[i].parent];
        svg.append(svgElement("path", { class: `edge ${nodes[i].fate}`, d: edgePath(size, above, spots[i]),
          "stroke-width": edgeWidth(nodes[i]).toFixed(1) }));
      });
      svg.append(drawNode(size, origin, { label: data.root.label, fate: "root", x: 0 }, -1));
      nodes.forEach((node, i) => svg.append(drawNode(size, spots[i], node, i)));
    }
    if (state.round >= 0) stage.replaceChildren(svg);
    else stage.replaceChildren(dwElement("div", { class: "hint" }, "The tree of each round appears here."));
    choose(chosenNode(), had);
  }

  function drawNode(size, at, node, i) {
    const says = i < 0 ? `${node.label}, root, the last committed token`
      : `${node.label}, ${node.fate}, depth ${node.x}, p ${dwChance(node.p)}, `
        + `${node.q === null ? "chosen" : `q ${dwChance(node.q)}`}, accept ${dwChance(node.accept)}`;
    const group = svgElement("g", { class: `node ${node.fate}`, role: "treeitem", tabindex: "-1",
      "aria-label": says, "aria-level": node.x + 1, "data-node": i });
    group.append(
      svgElement("title", {}, says),
      svgElement("rect", { x: at.x, y: at.y - size.node.h / 2, width: size.node.w, height: size.node.h, rx: 6 }),
      svgElement("text", { x: at.x + size.node.w / 2, y: at.y, "font-size": size.type },
        shorten(node.label, size.node.w, size.type)),
    );
    if (node.fate === "rejected") {
      group.append(svgElement("line", { class: "strike", x1: at.x + 5, x2: at.x + size.node.w - 5, y1: at.y, y2: at.y }));
    }
    state.groups[i + 1] = group;
    return group;
  }

  function choose(node, focus) {
    state.groups.forEach((group, row) => {
      const on = row - 1 === node;
      group.classList.toggle("chosen", on);
      group.setAttribute("aria-selected", String(on));
      group.setAttribute("tabindex", on ? "0" : "-1");
    });
    state.node = node;
    const group = state.groups[node + 1];
    if (!group) return;
    if (focus) group.focus({ preventScroll: true });
    const box = stage.getBoundingClientRect(), at = group.getBoundingClientRect();
    if (at.right > box.right) stage.scrollLeft += at.right - box.right + 16;
    else if (at.left < box.left) stage.scrollLeft -= box.left - at.left + 16;
    if (at.bottom > box.bottom) stage.scrollTop += at.bottom - box.bottom + 10;
    else if (at.top < box.top) stage.scrollTop -= box.top - at.top + 10;
  }

  function pick(node) {
    wishedNode.make({ round: state.round, node });
    choose(node, true);
    post({ kind: "node", round: state.round, node });
  }

  function scrub(round) {
    const wanted = Math.max(0, Math.min(rounds() - 1, round));
    if (wanted === shownRound() || !rounds()) return;
    wishedRound.make(wanted);
    drawHead();
    post({ kind: "round", round: wanted });
  }

  stage.addEventListener("click", (event) => {
    const group = event.target.closest("[data-node]");
    if (group) pick(Number(group.dataset.node));
  });
  back.addEventListener("click", () => scrub(shownRound() - 1));
  next.addEventListener("click", () => scrub(shownRound() + 1));
  slider.addEventListener("input", () => scrub(Number(slider.value) - 1));
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const nodes = field("data").nodes || [];
    if (event.key === "[" || event.key === "]") scrub(shownRound() + (event.key === "]" ? 1 : -1));
    else if (event.key.startsWith("Arrow") && stage.contains(event.target)) pick(walkTo(nodes, state.node, event.key));
    else if ((event.key === "Enter" || event.key === " ") && stage.contains(event.target)) pick(state.node);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  const silent = dwListen(model, { data: draw, round_count: drawHead,
    selected: () => choose(chosenNode(), stage.contains(root.getRootNode().activeElement)) });
  const unfollow = dwFollow(model, el, root);
  const sizes = new ResizeObserver(() => draw());
  sizes.observe(stage);
  draw();
  return () => { silent(); unfollow(); sizes.disconnect(); wishedRound.forget(); wishedNode.forget(); };
}

export default { render };
