// The token stream: prompt dimmed, each token by fate, append-only redraw, roving focus.

const STREAM_CSS = `
.dw-token_stream { position: relative; display: flex; flex-direction: column; min-height: 96px; }
.dw-token_stream .head { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline;
  padding: 12px 18px 6px; }
.dw-token_stream .title { font-size: 11px; font-weight: 700; color: var(--dw-muted); margin-right: auto; }
.dw-token_stream .legend { display: flex; flex-wrap: wrap; gap: 2px 10px; font: 12px/1.5 MONO;
  color: var(--dw-muted); }
.dw-token_stream .scroll { flex: 1; min-height: 0; overflow: auto; padding: 0 18px 14px;
  contain: content; scrollbar-width: thin; scrollbar-color: var(--dw-edge) transparent; }
.dw-token_stream .text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0;
  font: 13px/1.78 MONO; tab-size: 4; }
.dw-token_stream .prompt, .dw-token_stream .mark { color: var(--dw-muted); }
.dw-token_stream .mark { user-select: none; opacity: .8; }
.dw-token_stream .token { cursor: pointer; border-radius: 3px; padding: 1px 0;
  -webkit-box-decoration-break: clone; box-decoration-break: clone;
  text-decoration-line: underline; text-decoration-skip-ink: none; text-underline-offset: 4px;
  text-decoration-thickness: 2px; }
.dw-token_stream .accepted { background: var(--dw-accepted-fill);
  text-decoration-style: solid; text-decoration-color: var(--dw-accepted); }
.dw-token_stream .bonus { background: var(--dw-bonus-fill);
  text-decoration-style: dotted; text-decoration-color: var(--dw-bonus); }
.dw-token_stream .corrected { background: var(--dw-corrected-fill); text-decoration-thickness: 1.2px;
  text-decoration-style: wavy; text-decoration-color: var(--dw-corrected); }
.dw-token_stream .legend .token { cursor: default; padding: 1px 4px; }
.dw-token_stream .chosen { outline: 2px solid var(--dw-select); outline-offset: -1px;
  border-radius: 4px; }
.dw-token_stream .token:focus-visible { outline: 2px solid var(--dw-text); outline-offset: 1px; }
.dw-token_stream .caret { display: inline-block; width: 7px; height: 15px; vertical-align: -3px;
  background: var(--dw-accent); opacity: .75; border-radius: 1px; margin-left: 1px; }
.dw-token_stream .empty { color: var(--dw-muted); font-style: italic; }
.dw-token_stream .tip { position: fixed; inset: auto; margin: 0; border: 0; padding: 8px 11px;
  border-radius: 7px; background: var(--dw-tip); color: var(--dw-tip-text); font-size: 12px;
  line-height: 1.5; pointer-events: none; max-width: 280px; box-shadow: 0 4px 16px rgba(0,0,0,.22); }
.dw-token_stream .tip b, .dw-token_stream .tip code { font-family: MONO; }
.dw-token_stream .tip .dim { opacity: .72; }
.dw-token_stream .tip table { border-spacing: 0; margin-top: 4px; }
.dw-token_stream .tip td { padding: 0 14px 0 0; }
@media (max-width: 480px) { .dw-token_stream .head, .dw-token_stream .scroll { padding-left: 14px;
  padding-right: 14px; } .dw-token_stream .text { font-size: 12.5px; } }
`.replaceAll("MONO", DW_MONO);

const FATE = { a: "accepted", b: "bonus", c: "corrected" };

function visiblePiece(text) {
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "·") || "∅";
}

function fillText(span, text) {
  text.split("\n").forEach((line, i) => {
    if (i) span.append(dwElement("span", { class: "mark", "aria-hidden": "true" }, "⏎"), "\n");
    span.append(line);
  });
}

const COLUMNS = ["tokens", "round", "node", "index", "p", "q", "alternatives", "words"];

/** The columns of `data` with those of its tail after them; a tail of other data is left out. */
function wholeStream(field) {
  const data = field("data"), tail = field("tail");
  if (!data.tokens) return { tokens: [], words: [], round: [], fates: "", prompt: data.prompt };
  if (!tail.tokens || tail.of !== data.number) return data;
  const whole = { ...data, rounds: tail.rounds, fates: data.fates + tail.fates };
  for (const name of COLUMNS) whole[name] = data[name].concat(tail[name]);
  return whole;
}

/** The tooltip of a token: fate, round, depth, p, q and what the target would have said instead. */
function makeTip(stream) {
  const tip = dwElement("div", { class: "tip", role: "tooltip", hidden: "" });
  if (tip.showPopover) tip.popover = "manual";

  function show(span) {
    const data = stream(), i = Number(span.dataset.i);
    tip.replaceChildren(...tipContent(data, i));
    tip.hidden = false;
    if (tip.showPopover && tip.popover && !tip.matches(":popover-open")) tip.showPopover();
    const at = span.getClientRects()[0] || span.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const left = Math.max(8, Math.min(at.left, innerWidth - size.width - 8));
    const below = at.bottom + 8 + size.height < innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? at.bottom + 8 : at.top - size.height - 8}px`;
  }

  function tipContent(data, i) {
    const chance = (value) => dwChance(value < 0 ? null : value / 1000);
    const fate = FATE[data.fates[i]], q = data.q[i];
    const rows = (data.alternatives[i] || []).reduce((list, value, at, all) =>
      (at % 2 ? list : [...list, [data.words[value], all[at + 1]]]), []);
    const table = dwElement("table", {}, ...rows.map(([name, p]) => dwElement("tr", {},
      dwElement("td", {}, dwElement("code", {}, visiblePiece(name))), dwElement("td", {}, chance(p)))));
    const numbers = `p ${chance(data.p[i])}${q >= 0 ? `   q ${chance(q)}` : ""}`;
    return [
      dwElement("b", {}, visiblePiece(data.words[data.tokens[i]])), ` ${fate}`,
      dwElement("div", { class: "dim" }, `${DW_FATES[fate][1]}`),
      dwElement("div", {}, `round ${data.round[i] + 1} · depth ${data.index[i] + 1} · ${numbers}`),
      ...(rows.length ? [dwElement("div", { class: "dim" }, "instead of"), table] : []),
    ];
  }

  function hide() {
    if (tip.popover && tip.hidePopover && tip.matches(":popover-open")) tip.hidePopover();
    tip.hidden = true;
  }

  return { element: tip, show, hide };
}

function render({ model, el }) {
  const root = dwRoot(el, "token_stream", STREAM_CSS);
  const legend = dwElement("div", { class: "legend", "aria-label": "How to read the colours" });
  for (const fate of ["accepted", "bonus", "corrected"]) {
    const title = DW_FATES[fate][1];
    legend.append(dwElement("span", { class: `token ${fate}`, title }, fate));
  }
  legend.append(dwElement("span", { title: "the text that was given" }, "prompt"));
  const prompt = dwElement("span", { class: "prompt" });
  const body = dwElement("span", { role: "listbox", "aria-label": "Generated tokens" });
  const tail = dwElement("span", {});
  const text = dwElement("div", { class: "text" }, prompt, body, tail);
  const scroll = dwElement("div", { class: "scroll" }, text);
  const field = dwFields(model);
  let stream = wholeStream(field);
  const tip = makeTip(() => stream);
  root.append(
    dwElement("div", { class: "head" }, dwElement("span", { class: "title" }, "Stream"), legend),
    scroll, tip.element,
  );
  const post = dwOutbox(model);
  const state = { tokens: [], fates: "", round: [], words: [], spans: [], byRound: new Map(),
    focus: -1, sticky: true, chosen: -1, prompt: null };

  const wished = dwWish(() => outline(model.get("selected"), false));
  const word = (data, i) => data.words[data.tokens[i]];
  const spanOf = (target) => {
    const span = target.closest && target.closest("[data-i]");
    return span && body.contains(span) ? span : null;
  };

  function keptPrefix(data) {
    const most = Math.min(state.tokens.length, data.tokens.length);
    let i = 0;
    while (i < most && state.round[i] === data.round[i] && state.fates[i] === data.fates[i]
      && state.words[state.tokens[i]] === word(data, i)) i += 1;
    return i;
  }

  function draw() {
    const data = stream = wholeStream(field);
    const given = (data.prompt || []).join("");
    if (given !== state.prompt) {
      prompt.replaceChildren();
      fillText(prompt, given);
      state.prompt = given;
    }
    const from = keptPrefix(data);
    state.spans.splice(from).forEach((span) => span.remove());
    state.byRound.forEach((list) => { while (list.length && list[list.length - 1] >= from) list.pop(); });
    const fresh = document.createDocumentFragment();
    for (let i = from; i < data.tokens.length; i += 1) fresh.append(makeSpan(data, i));
    body.append(fresh);
    Object.assign(state, { tokens: data.tokens, fates: data.fates, round: data.round, words: data.words });
    if (state.focus >= state.spans.length) state.focus = -1;
    if (state.focus < 0 && state.spans.length) setRoving(0, false);
    drawTail();
    outline(wished.or(model.get("selected")), false);
    if (model.get("running") && state.sticky) scroll.scrollTop = scroll.scrollHeight;
  }

  function makeSpan(data, i) {
    const fate = FATE[data.fates[i]], piece = word(data, i);
    const span = dwElement("span", { class: `token ${fate}`, role: "option", tabindex: "-1",
      "aria-selected": "false", "data-i": i,
      "aria-label": `${visiblePiece(piece)}, ${fate}, round ${data.round[i] + 1}` });
    fillText(span, piece);
    state.spans.push(span);
    if (!state.byRound.has(data.round[i])) state.byRound.set(data.round[i], []);
    state.byRound.get(data.round[i]).push(i);
    return span;
  }

  function drawTail() {
    tail.replaceChildren();
    if (model.get("running")) tail.append(dwElement("span", { class: "caret", "aria-hidden": "true" }));
    else if (!state.spans.length) {
      tail.append(dwElement("span", { class: "empty" }, state.prompt ? " nothing generated yet" : "Nothing generated yet."));
    }
  }

  function outline(round, reveal = true) {
    (state.byRound.get(state.chosen) || []).forEach((i) => mark(i, false));
    state.chosen = round;
    const now = state.byRound.get(round) || [];
    now.forEach((i) => mark(i, true));
    if (reveal && now.length && !(model.get("running") && state.sticky)) showSpan(state.spans[now[0]]);
  }

  function mark(i, on) {
    const span = state.spans[i];
    if (!span) return;
    span.classList.toggle("chosen", on);
    span.setAttribute("aria-selected", String(on));
  }

  function showSpan(span) {
    const box = scroll.getBoundingClientRect(), at = span.getBoundingClientRect();
    const away = Math.max(box.top - at.top, at.bottom - box.bottom);
    if (away <= 0) return;
    if (away > 60) scroll.scrollTop += (at.top + at.bottom - box.top - box.bottom) / 2;
    else scroll.scrollTop += at.top < box.top ? -away - 24 : away + 24;
  }

  function setRoving(i, focus = true) {
    if (state.spans[state.focus]) state.spans[state.focus].tabIndex = -1;
    state.focus = i;
    state.spans[i].tabIndex = 0;
    if (focus) { state.spans[i].focus({ preventScroll: true }); showSpan(state.spans[i]); }
  }

  function choose(i) {
    const data = stream;
    wished.make(data.round[i]);
    outline(data.round[i], false);
    post({ kind: "token", round: data.round[i], node: data.node[i], index: data.index[i] });
  }

  function changeRound(step) {
    const count = stream.rounds || 0;
    if (!count) return;
    const round = Math.max(0, Math.min(count - 1, Math.max(0, state.chosen) + step));
    wished.make(round);
    outline(round);
    const first = (state.byRound.get(round) || [])[0];
    if (first !== undefined && body.contains(root.getRootNode().activeElement)) setRoving(first);
    post({ kind: "round", round });
  }

  body.addEventListener("pointerover", (event) => {
    const span = spanOf(event.target);
    if (span) tip.show(span); else tip.hide();
  });
  root.addEventListener("pointerleave", tip.hide);
  scroll.addEventListener("scroll", () => {
    tip.hide();
    state.sticky = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 24;
  });
  body.addEventListener("click", (event) => {
    const span = spanOf(event.target);
    if (!span) return;
    setRoving(Number(span.dataset.i));
    choose(Number(span.dataset.i));
  });
  body.addEventListener("focusin", (event) => {
    const span = spanOf(event.target);
    if (span && span.matches(":focus-visible")) tip.show(span);
  });
  body.addEventListener("focusout", tip.hide);
  root.addEventListener("keydown", (event) => {
    const last = state.spans.length - 1, at = state.focus;
    const moves = { ArrowRight: Math.min(last, at + 1), ArrowLeft: Math.max(0, at - 1), Home: 0, End: last };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "[" || event.key === "]") changeRound(event.key === "]" ? 1 : -1);
    else if (event.key === "Escape") tip.hide();
    else if (at >= 0 && event.key in moves) setRoving(moves[event.key]);
    else if (at >= 0 && (event.key === "Enter" || event.key === " ")) choose(at);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  const silent = dwListen(model, {
    data: draw,
    tail: draw,
    selected: () => outline(wished.or(model.get("selected"))),
    running: () => { drawTail(); if (model.get("running")) state.sticky = true; },
  });
  const unfollow = dwFollow(model, el, root);
  draw();
  outline(model.get("selected"));
  requestAnimationFrame(() => outline(model.get("selected")));
  return () => { silent(); unfollow(); tip.hide(); wished.forget(); };
}

export default { render };
