// Probabilities over the stages of a model: for the whole image, and dashed for the token under the cursor.
import { drawn, node } from "./core.js";
import { LINES, palette, pointsOf, svgAxis, svgDrawing, svgText } from "./drawing.js";

const CHART = { height: 250, left: 46, right: 14, top: 12, bottom: 34 };

// A drawing of curves [{values}] from 0 to `high`, whose moving parts are returned with it.
export function stageChart(curves, short, high, colours, width = 560) {
  const { height, left, right, top, bottom } = CHART;
  const across = (stage) => left + (stage / Math.max(1, short.length - 1)) * (width - left - right);
  const place = (value) => top + (1 - value / high) * (height - top - bottom);
  const lines = curves.map(({ values }, i) => drawn("polyline", {
    points: pointsOf(values, across, place), fill: "none", stroke: LINES[i % LINES.length], "stroke-width": 2.2, "stroke-linejoin": "round",
  }));
  const dashed = curves.map((curve, i) => drawn("polyline", {
    points: "", fill: "none", stroke: LINES[i % LINES.length], "stroke-width": 1.6, "stroke-dasharray": "4 4",
  }));
  const mark = drawn("line", { y1: top, y2: height - bottom, stroke: colours.quiet, "stroke-width": 1 });
  const every = Math.ceil(short.length / (width / 34));
  const svg = svgDrawing(width, height,
    svgAxis({ x: left, width: width - left - right, low: 0, high, place, colours }),
    short.map((name, i) => (i % every ? [] : svgText(across(i), height - 14, name, { fill: colours.quiet, anchor: "middle", size: 11 }))),
    mark, dashed, lines);
  return { svg, dashed, mark, across, place };
}

export class StageCurves {
  constructor(name) {
    this.holder = node("div", { class: "pz-drawing" });
    this.legend = node("ul", { class: "pz-legend" });
    this.element = node("figure", { class: "pz-figure" }, node("figcaption", {}, name), this.holder, this.legend);
  }

  // curves: [{name, values [stage], button}], whose axis ends at `high`; `button` is an element behind the name, or null
  draw(curves, short, high) {
    this.curves = curves;
    this.chart = stageChart(curves, short, high, palette(this.element), Math.max(280, Math.min(640, this.holder.clientWidth || 560)));
    this.chart.svg.setAttribute("role", "img");
    this.chart.svg.setAttribute("aria-label", "Probability of each chosen class at every stage; the table has the numbers.");
    this.chart.svg.setAttribute("class", "pz-chart");
    ["width", "height"].forEach((side) => this.chart.svg.removeAttribute(side));
    this.holder.replaceChildren(this.chart.svg);
    this.values = curves.map(() => node("span", { class: "pz-number" }));
    this.legend.replaceChildren(...curves.map(({ name, button }, i) => node("li", {},
      node("span", { class: "pz-key", style: `background:${LINES[i % LINES.length]}`, "aria-hidden": "true" }), node("span", { class: "pz-name" }, name), this.values[i], button || "")));
  }

  // The token's curves and the mark: alone(i) -> [stage] or null.
  show(stage, alone, format) {
    const { dashed, mark, across, place } = this.chart;
    const x = across(stage).toFixed(1);
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
    this.curves.forEach((curve, i) => {
      const values = alone(i);
      dashed[i].setAttribute("points", values ? pointsOf(values, across, place) : "");
      const words = `${format(curve.values[stage])}${values ? ` (token ${format(values[stage])})` : ""}`;
      if (this.values[i].textContent !== words) this.values[i].textContent = words;
    });
  }
}
