// Curves over training steps, with a cursor at one of them. The axis of steps is logarithmic from step 1 on, as
// checkpoints are. Only what moves is drawn again when the cursor moves.
import { drawn, node } from "./core.js";

const STEP_CHART = { height: 230, left: 64, right: 14, top: 12, bottom: 28 };
const STEP_COLOURS = ["#3d6fb5", "#c2503f", "#b3831b", "#2a8f7f", "#8a5fa3"];
const STEP_INK = { line: "#dfe2e8", quiet: "#5d6675", mark: "#1d2129" };
const short = (value) => String(Number(value.toPrecision(3)));

// The number of a curve at the last of its steps that is not after this one; undefined before the first.
export function valueAt({ steps, values }, step) {
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle + 1;
    else high = middle;
  }
  return values[low - 1];
}

// handlers: over(step) and out() for the pointer, pick(step) for a click; the step is that of the nearest checkpoint.
export class StepCurves {
  constructor(title, handlers) {
    this.title = title;
    this.caption = node("figcaption", {}, title);
    this.holder = node("div", { class: "pz-step-chart" });
    this.legend = node("ul", { class: "pz-legend" });
    this.element = node("figure", { class: "pz-figure" }, this.caption, this.holder, this.legend);
    const stepOf = (event) => {
      const bounds = this.holder.getBoundingClientRect();
      const x = event.clientX - bounds.left;
      const distance = (step) => Math.abs(this.across(step) - x);
      return this.steps.reduce((best, step) => (distance(step) < distance(best) ? step : best));
    };
    const listen = (type, handler) => this.holder.addEventListener(type, (event) => this.steps?.length && handler(stepOf(event)));
    listen("pointermove", handlers.over);
    listen("click", handlers.pick);
    this.holder.addEventListener("pointerleave", handlers.out);
    new ResizeObserver(() => this.curves && this.holder.clientWidth && this.holder.clientWidth !== this.width && this.draw(this.curves, this.steps, this.at)).observe(this.holder);
  }

  // curves: [{name, steps, values, quiet, change}], `quiet` for those without a name in the legend; steps: of the checkpoints.
  // `change` of a curve is {step, from, to}, where it changed most: a dot, and a band of what has a name.
  draw(curves, steps, at) {
    Object.assign(this, { curves, steps, at });
    this.width = this.holder.clientWidth || this.width || 360;
    const { height, left, right, top, bottom } = STEP_CHART;
    const all = curves.flatMap(({ values }) => values);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const last = Math.max(1, steps.at(-1) ?? 0, ...curves.map((curve) => curve.steps.at(-1)));
    this.across = (step) => left + (Math.log1p(step) / Math.log1p(last)) * (this.width - left - right);
    const place = (value) => top + ((high - value) / (high - low || 1)) * (height - top - bottom);
    const text = (x, y, words, anchor) => drawn("text", { x, y, "text-anchor": anchor, fill: STEP_INK.quiet, "font-size": 12, class: "pz-axis" }, words);
    const levels = [0, 0.5, 1].map((part) => low + part * (high - low));
    const ticks = [...new Set([0, ...[1, 10, 100, 1e3, 1e4, 1e5, 1e6].filter((step) => this.across(step) < this.width - 70), last])];
    const points = (curve) => curve.steps.map((step, k) => `${this.across(step).toFixed(1)},${place(curve.values[k]).toFixed(1)}`).join(" ");
    const colour = (i) => STEP_COLOURS[i % STEP_COLOURS.length];
    const named = curves.filter((curve) => !curve.quiet);
    const lines = curves.map((curve) => drawn("polyline", {
      points: points(curve), fill: "none", "stroke-linejoin": "round", stroke: curve.quiet ? STEP_INK.quiet : colour(named.indexOf(curve)),
      "stroke-width": curve.quiet ? 1 : 2.2, "stroke-opacity": curve.quiet ? 0.4 : 1,
    }));
    const changed = curves.filter(({ change }) => change);
    const bands = changed.filter(({ quiet }) => !quiet).map((curve) => drawn("rect", {
      x: this.across(curve.change.from).toFixed(1), width: Math.max(3, this.across(curve.change.to) - this.across(curve.change.from)).toFixed(1), y: top, height: height - top - bottom, fill: colour(named.indexOf(curve)), "fill-opacity": 0.15, class: "pz-change",
    }));
    const dots = changed.map((curve) => drawn("circle", {
      cx: this.across(curve.change.step).toFixed(1), cy: place(valueAt(curve, curve.change.step)).toFixed(1), r: curve.quiet ? 2.2 : 4.5, fill: curve.quiet ? STEP_INK.quiet : colour(named.indexOf(curve)), "fill-opacity": curve.quiet ? 0.6 : 1,
    }));
    const cursor = (kind) => drawn("line", { y1: top, y2: height - bottom, x1: -9, x2: -9, stroke: STEP_INK.mark, "stroke-width": 1.5, "stroke-dasharray": "3 3", class: kind });
    Object.assign(this, { mark: cursor("pz-mark"), over: cursor("pz-mark pz-mark-over") });
    this.svg = drawn("svg", { viewBox: `0 0 ${this.width} ${height}`, width: this.width, height, role: "img", "aria-label": `${this.title} over training steps; the table has the numbers` },
      ...levels.flatMap((value) => [
        drawn("line", { x1: left, x2: this.width - right, y1: place(value), y2: place(value), stroke: STEP_INK.line, class: "pz-grid" }),
        text(left - 7, place(value) + 4, short(value), "end")]),
      ...ticks.map((step) => text(this.across(step), height - 8, step.toLocaleString("en"), step === last ? "end" : "middle")),
      ...bands, this.over, ...lines, ...dots, this.mark);
    this.holder.replaceChildren(this.svg);
    this.numbers = named.map(() => node("span", {}));
    this.legend.replaceChildren(...named.map((curve, i) => node("li", {},
      node("span", { class: "pz-key", style: `background:${colour(i)}`, "aria-hidden": "true" }), node("span", {}, curve.name), this.numbers[i])));
    this.named = named;
    this.move(at);
  }

  // The cursor, and the numbers of the legend, at a step.
  move(at) {
    this.at = at;
    for (const side of ["x1", "x2"]) this.mark.setAttribute(side, this.across(at).toFixed(1));
    this.named.forEach((curve, i) => {
      const value = valueAt(curve, at);
      this.numbers[i].textContent = value === undefined ? "none yet" : String(Number(value.toPrecision(4)));
    });
  }

  // The step under the pointer; null for none.
  hover(step) {
    if (this.over) for (const side of ["x1", "x2"]) this.over.setAttribute(side, step === null ? -9 : this.across(step).toFixed(1));
  }
}
