// What every view asks of its host: an outbox, a colour mode, a root element. No imports, no send.

/** Returns post(event): append a numbered event to the outbox trait. Events are not state.
 *  `keep` says which of the events so far stay in it. */
function dwOutbox(model, keep = (events) => events.slice(-100)) {
  return (event) => {
    const kept = model.get("outbox") || [];
    const last = kept.length ? kept[kept.length - 1].seq : 0;
    const seq = Math.max(last + 1, Date.now());
    model.set("outbox", keep([...kept, { seq, ...event }]));
    model.save_changes();
  };
}

/** Returns get(name): a field of the model, opened where it came packed as `{packed: JSON text}`. */
function dwFields(model) {
  const opened = {};
  return (name) => {
    const given = model.get(name) || {};
    if (typeof given.packed !== "string") return given;
    if (!opened[name] || opened[name].text !== given.packed) {
      opened[name] = { text: given.packed, value: JSON.parse(given.packed) };
    }
    return opened[name].value;
  };
}

function dwElement(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") node.className = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/** The first opaque background behind an element, through shadow roots; null where there is none. */
function dwBehind(element) {
  let node = element;
  while (node) {
    const found = /rgba?\(([^)]+)\)/.exec(getComputedStyle(node).backgroundColor);
    const parts = found ? found[1].split(/[\s,/]+/).map(Number) : [0, 0, 0, 0];
    if (parts.length < 4 || parts[3] > 0.5) return parts;
    node = node.parentElement || (node.getRootNode() && node.getRootNode().host);
  }
  return null;
}

function dwHostMode(el) {
  const jupyter = document.body && document.body.dataset.jpThemeLight;
  if (jupyter) return jupyter === "false" ? "dark" : "light";
  const behind = dwBehind(el);
  if (behind) return 0.3 * behind[0] + 0.6 * behind[1] + 0.1 * behind[2] < 110 ? "dark" : "light";
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Keep the root's height at box_px and its data-mode at the model's wish or, "auto", the host's look. */
function dwFollow(model, el, root, changed = () => {}) {
  const apply = () => {
    const wish = model.get("mode");
    const mode = wish === "light" || wish === "dark" ? wish : dwHostMode(el);
    if (root.dataset.mode === mode) return;
    root.dataset.mode = mode;
    changed(mode);
  };
  const size = () => {
    const px = model.get("box_px");
    root.style.height = px > 0 ? `${px}px` : "100%";
  };
  const watcher = new MutationObserver(() => setTimeout(apply, 60));
  const options = { attributes: true, attributeFilter: ["class", "style", "data-theme",
    "data-jp-theme-light", "data-jp-theme-name", "theme"] };
  watcher.observe(document.documentElement, options);
  if (document.body) watcher.observe(document.body, options);
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", apply);
  model.on("change:mode", apply);
  model.on("change:box_px", size);
  size();
  apply();
  requestAnimationFrame(apply);
  return () => {
    watcher.disconnect();
    media.removeEventListener("change", apply);
    model.off("change:mode", apply);
    model.off("change:box_px", size);
  };
}

/** A root with the theme inside `el`; `css` is the view's own. */
function dwRoot(el, name, css) {
  const root = dwElement("div", { class: `dw dw-${name}` });
  el.append(dwElement("style", {}, `${DW_CSS}\n.dw, .dw * { box-sizing: border-box; }\n${css}`), root);
  return root;
}

/** A choice made here outlives late answers from the kernel: `or(given)` is the choice while it is
 *  fresh, then the kernel's word again; `settle` is called at that moment. */
function dwWish(settle, fresh_ms = 600) {
  let kept, timer;
  return {
    make(value) {
      kept = value;
      clearTimeout(timer);
      timer = setTimeout(() => { kept = undefined; settle(); }, fresh_ms);
    },
    or: (given) => (kept === undefined ? given : kept),
    forget() { clearTimeout(timer); kept = undefined; },
  };
}

/** Subscribe and return the way to unsubscribe all of it. */
function dwListen(model, handlers) {
  for (const [name, handler] of Object.entries(handlers)) model.on(`change:${name}`, handler);
  return () => {
    for (const [name, handler] of Object.entries(handlers)) model.off(`change:${name}`, handler);
  };
}

function dwChance(value) {
  if (value === null || value === undefined || value < 0) return "–";
  return value > 0 && value < 0.005 ? "<0.01" : value.toFixed(2);
}
