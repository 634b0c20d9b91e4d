// Draws every chart of the page from its Vega-Lite specification. Loads nothing; expressions are
// interpreted, not evaluated, so that the page's policy can forbid eval.
(() => {
  const { specs, night } = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const actions = { export: true, source: false, compiled: false, editor: false };
  const draw = () => {
    for (const node of document.querySelectorAll("[data-chart]")) {
      const recolour = (_, value) =>
        dark.matches && typeof value === "string" && Object.hasOwn(night, value) ? night[value] : value;
      const spec = JSON.parse(JSON.stringify(specs[node.dataset.chart]), recolour);
      const tooltip = { theme: dark.matches ? "dark" : "light" };
      vegaEmbed(node, spec, { ast: true, renderer: "svg", mode: "vega-lite", actions, tooltip });
    }
  };
  dark.addEventListener("change", draw);
  draw();
})();
