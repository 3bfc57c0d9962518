// Runs plotly.js, which arrives as the trait `script`, once a page.
//
// It is no part of this module: its 5 MB would have to be parsed before the module counts as started,
// and JupyterLab takes messages for a view only if that happens within two seconds.

function initialize({ model }) {
  if (globalThis.__dwPlotly || globalThis.__dwPlotlyComes) return;
  globalThis.__dwPlotlyComes = true;
  const script = document.createElement("script");
  script.src = URL.createObjectURL(new Blob([model.get("script")], { type: "text/javascript" }));
  script.onload = () => URL.revokeObjectURL(script.src);
  script.onerror = () => { globalThis.__dwPlotlyComes = false; };
  // While it runs no other view of the page can start, so it waits until those have.
  const later = globalThis.requestIdleCallback || ((work) => setTimeout(work));
  later(() => document.head.append(script), { timeout: 3000 });
}

export default { initialize, render({ el }) { el.style.display = "none"; } };
