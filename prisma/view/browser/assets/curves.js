// Curves of a training run, with a mark at one step.
// facts: {charts: [{title, curves: [{name, steps: [number, ...], values: [number, ...]}, ...]}, ...], chosen: step, where}
// A chart's curves have one scale; the axis of steps is logarithmic from step 1 on, as checkpoints are.

const CURVES = { width: 520, height: 260, left: 52, right: 12, top: 14, bottom: 34 };
const SVG = new DOMParser().parseFromString("<svg></svg>", "text/html").body.firstChild.namespaceURI;

function drawn(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const brief = (value) => String(Number(value.toPrecision(3)));

// The value of a curve at the last step that is not after this one.
function valueAt(curve, step) {
  let found = null;
  curve.steps.forEach((s, i) => { if (s <= step) found = curve.values[i]; });
  return found;
}

class Curves {
  constructor(root, callbacks) {
    this.callbacks = callbacks;
    this.words = node("p", { class: "pz-words", role: "status" });
    this.charts = node("div", { class: "pz-charts" });
    root.replaceChildren(this.words, this.charts);
  }

  chart({ title, curves }, chosen) {
    const { width, height, left, right, top, bottom } = CURVES;
    const all = curves.flatMap((curve) => curve.values);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const last = Math.max(1, ...curves.flatMap((curve) => curve.steps));
    const x = (step) => left + (Math.log1p(step) / Math.log1p(last)) * (width - left - right);
    const y = (value) => top + ((high - value) / (high - low || 1)) * (height - top - bottom);
    const line = (a, b, kind) => drawn("line", { x1: a[0], y1: a[1], x2: b[0], y2: b[1], class: kind });
    const text = (at, words, anchor) => drawn("text", { x: at[0], y: at[1], "text-anchor": anchor, class: "pz-axis" }, words);
    const heights = [0, 0.5, 1].map((part) => low + part * (high - low));
    const steps = [...new Set([0, ...[1, 10, 100, 1000, 10000, 100000].filter((step) => step < last / 2), last])];
    const paths = curves.map((curve, i) => drawn("polyline", {
      class: `pz-curve pz-curve-${i}`, points: curve.steps.map((step, k) => `${x(step).toFixed(1)},${y(curve.values[k]).toFixed(1)}`).join(" "),
    }));
    const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "pz-chart", role: "img", "aria-label": title },
      ...heights.flatMap((value) => [line([left, y(value)], [width - right, y(value)], "pz-grid"), text([left - 7, y(value) + 4], brief(value), "end")]),
      ...steps.map((step) => text([x(step), height - 12], step.toLocaleString("en"), step === last ? "end" : "middle")),
      line([x(chosen), top], [x(chosen), height - bottom], "pz-mark"), ...paths);
    const names = curves.map((curve, i) => {
      const value = valueAt(curve, chosen);
      return node("li", {}, node("span", { class: `pz-key pz-key-${i}`, "aria-hidden": "true" }), `${curve.name}: ${value === null ? "none yet" : String(Number(value.toPrecision(4)))}`);
    });
    return node("figure", { class: "pz-figure" }, node("figcaption", {}, title), picture, node("ul", { class: "pz-legend" }, ...names));
  }

  async update({ facts }) {
    this.words.textContent = `At step ${facts.chosen.toLocaleString("en")}, the mark. Steps are on a logarithmic axis.`;
    this.charts.replaceChildren(...facts.charts.map((chart) => this.chart(chart, facts.chosen)));
    const at = facts.charts.flatMap(({ curves }) => curves.map((curve) => [curve.name, valueAt(curve, facts.chosen)]));
    this.callbacks.state({ at: Object.fromEntries(at), where: facts.where });
  }
}

const curves = (root, callbacks) => new Curves(root, callbacks);
