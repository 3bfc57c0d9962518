// Two laws over a few tokens as bars that can be dragged: p solid, q hollow. Arrows move a bar too.

const BARS_CSS = `
.dw-law_bars { display: flex; flex-direction: column; min-height: 180px; padding: 10px 18px 8px; }
.dw-law_bars .title { font-size: 11px; font-weight: 700; color: var(--dw-muted); display: flex; gap: 14px;
  flex-wrap: wrap; align-items: center; }
.dw-law_bars .key { font-weight: 400; font-size: 12px; display: inline-flex; gap: 5px; align-items: center; }
.dw-law_bars .key i { width: 11px; height: 11px; border-radius: 2px; display: inline-block; }
.dw-law_bars .key .p { background: var(--dw-accent); }
.dw-law_bars .key .q { border: 2px solid var(--dw-corrected); }
.dw-law_bars .stage { flex: 1; display: flex; gap: 4px; min-height: 0; margin-top: 6px; }
.dw-law_bars .token { flex: 1; display: flex; flex-direction: column; min-width: 0; align-items: center; }
.dw-law_bars .pair { flex: 1; display: flex; gap: 5px; width: 100%; justify-content: center; min-height: 0; }
.dw-law_bars .slot { position: relative; width: 34%; max-width: 44px; min-width: 16px; cursor: ns-resize;
  border-bottom: 1px solid var(--dw-edge); touch-action: none; outline: none; border-radius: 4px 4px 0 0; }
.dw-law_bars .slot:hover { background: var(--dw-surface); }
.dw-law_bars .slot:focus-visible { box-shadow: 0 0 0 2px var(--dw-accent); }
.dw-law_bars .bar { position: absolute; left: 0; right: 0; bottom: 0; border-radius: 4px 4px 0 0; }
.dw-law_bars .slot.p .bar { background: var(--dw-accent); }
.dw-law_bars .slot.q .bar { border: 2px solid var(--dw-corrected); border-bottom: 0; }
.dw-law_bars .grip { position: absolute; left: 50%; width: 14px; height: 4px; margin-left: -7px;
  border-radius: 2px; background: var(--dw-text); opacity: .55; }
.dw-law_bars .slot:hover .grip { opacity: 1; }
.dw-law_bars .value { position: absolute; left: -12px; right: -12px; text-align: center; font-size: 11px;
  color: var(--dw-muted); pointer-events: none; }
.dw-law_bars .name { font-family: MONO; font-size: 12px; margin-top: 4px; max-width: 100%; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
`.replaceAll("MONO", DW_MONO);

const TOP = 0.86; // share of the slot that the largest probability shown fills; the rest is for the number

export default {
  render({ model, el }) {
    const root = dwRoot(el, "law_bars", BARS_CSS), post = dwOutbox(model);
    const title = dwElement("div", { class: "title" }), stage = dwElement("div", { class: "stage" });
    root.append(title, stage);
    const stopFollowing = dwFollow(model, el, root);
    let slots = [], dragging = null, sent = 0, timer, full = 1;
    const wished = dwWish(() => draw());

    const say = (slot, asked, last) => {
      const { law, index } = slot, value = Math.round(asked * 1000) / 1000;
      const send = () => { sent = Date.now(); post({ kind: "bar", law, index, value }); };
      place(slot, value);
      wished.make({ slot, value });
      clearTimeout(timer);
      if (last || Date.now() - sent > 70) send(); else timer = setTimeout(send, 70);
    };
    const place = (slot, value) => {
      slot.shown = value;
      const share = 100 * TOP * Math.min(1, value / full);
      slot.bar.style.height = `${share}%`;
      slot.grip.style.bottom = `calc(${share}% - 2px)`;
      slot.value.style.bottom = `calc(${share}% + 3px)`;
      slot.value.textContent = dwChance(value);
      slot.box.setAttribute("aria-valuenow", value.toFixed(3));
    };
    const fromPointer = (slot, event) => {
      const box = slot.box.getBoundingClientRect();
      return Math.min(1, Math.max(0, (full * (box.bottom - event.clientY)) / box.height / TOP));
    };
    const build = (data) => {
      title.replaceChildren(
        dwElement("span", {}, data.title || "Target p and draft q"),
        dwElement("span", { class: "key" }, dwElement("i", { class: "p" }), "p target"),
        dwElement("span", { class: "key" }, dwElement("i", { class: "q" }), "q draft"),
        dwElement("span", { class: "key" }, "drag a bar, or use the arrow keys"));
      slots = [];
      stage.replaceChildren(...data.labels.map((label, index) => {
        const pair = dwElement("div", { class: "pair" });
        for (const law of ["p", "q"]) {
          const box = dwElement("div", { class: `slot ${law}`, role: "slider", tabindex: "0",
            "aria-valuemin": "0", "aria-valuemax": "1", "aria-orientation": "vertical",
            "aria-label": `${law === "p" ? "target" : "draft"} probability of ${label}` });
          const slot = { law, index, box, bar: dwElement("div", { class: "bar" }),
            grip: dwElement("div", { class: "grip" }), value: dwElement("div", { class: "value" }) };
          box.append(slot.bar, slot.grip, slot.value);
          box.addEventListener("pointerdown", (event) => {
            dragging = slot; box.setPointerCapture(event.pointerId); box.focus(); event.preventDefault();
            say(slot, fromPointer(slot, event), false);
          });
          box.addEventListener("pointermove", (event) => {
            if (dragging === slot) say(slot, fromPointer(slot, event), false);
          });
          const drop = (event) => {
            if (dragging !== slot) return;
            dragging = null; say(slot, fromPointer(slot, event), true);
          };
          box.addEventListener("pointerup", drop);
          box.addEventListener("pointercancel", () => { dragging = null; draw(); });
          box.addEventListener("keydown", (event) => {
            const step = { ArrowUp: 0.02, ArrowDown: -0.02, PageUp: 0.1, PageDown: -0.1 }[event.key];
            if (step === undefined) return;
            event.preventDefault();
            say(slot, Math.min(1, Math.max(0, slot.shown + step)), true);
          });
          pair.append(box);
          slots.push(slot);
        }
        return dwElement("div", { class: "token" }, pair, dwElement("div", { class: "name", title: label }, label));
      }));
    };
    let shown = "";
    const draw = () => {
      const data = model.get("data") || {};
      if (!data.labels) return;
      const key = JSON.stringify([data.labels, data.title]);
      if (key !== shown) { shown = key; build(data); }
      // The scale holds still while a bar is dragged; half a unit suits most laws better than one.
      if (!dragging) full = Math.max(...data.p, ...data.q) > 0.48 ? 1 : 0.5;
      for (const slot of slots) {
        const given = data[slot.law][slot.index], own = wished.or(null);
        if (slot === dragging) continue;
        if (!own || own.slot !== slot) place(slot, given);
        else if (Math.abs(own.value - given) > 5e-4) place(slot, own.value); // a late answer
        else { wished.forget(); place(slot, given); }
      }
    };
    const stopListening = dwListen(model, { data: draw });
    draw();
    return () => { clearTimeout(timer); wished.forget(); stopListening(); stopFollowing(); };
  },
};
