// Estimates against exact effects: a dot for each part, on the line where the estimate is right; as SVG.
import { brief, drawn } from "./core.js";
import { roundTicks, svgDrawing, svgText } from "./drawing.js";

const [DOT, SCATTER_NAMED] = ["#3d6fb5", 3]; // the colour of a dot, and how many have their name beside them
const SCATTER = { left: 52, right: 16, top: 14, bottom: 42 };

// points: [{exact, estimate, name, short}]; those with the largest exact effects have `short` beside them.
export function estimateScatter(points, { size, colours, title, below, beside }) {
  const { left, right, top, bottom } = SCATTER;
  const all = points.flatMap(({ exact, estimate }) => [exact, estimate]);
  const [least, most] = [Math.min(0, ...all), Math.max(0, ...all)];
  const room = 0.06 * (most - least || 1);
  const [low, high] = [least - (least < 0 ? room : 0), most + (most > 0 ? room : 0)];
  const inner = size - left - right;
  const across = (value) => left + ((value - low) / (high - low || 1)) * inner;
  const up = (value) => top + inner - ((value - low) / (high - low || 1)) * inner;
  const line = (x1, y1, x2, y2, more) => drawn("line", { x1, y1, x2, y2, stroke: colours.line, ...more });
  const ticks = roundTicks(low, high).map((value) => [
    line(left, up(value), size - right, up(value)), line(across(value), top, across(value), top + inner),
    svgText(left - 6, up(value) + 4, String(Number(value.toPrecision(6))), { fill: colours.quiet, anchor: "end", size: 11 }),
    svgText(across(value), top + inner + 16, String(Number(value.toPrecision(6))), { fill: colours.quiet, anchor: "middle", size: 11 }),
  ]);
  const dots = points.map(({ exact, estimate, name }) => {
    const dot = drawn("circle", { cx: across(exact).toFixed(1), cy: up(estimate).toFixed(1), r: 4.5, fill: DOT, "fill-opacity": 0.75 });
    dot.append(drawn("title", {}, `${name}: exact ${brief(exact)}, estimated ${brief(estimate)}`));
    return dot;
  });
  const named = [...points].sort((a, b) => Math.abs(b.exact) - Math.abs(a.exact)).slice(0, SCATTER_NAMED).filter(({ short }) => short).map(({ exact, estimate, short }) => {
    const isRight = across(exact) > size - right - 46;
    return svgText(across(exact) + (isRight ? -8 : 8), up(estimate) + 4, short, { fill: colours.ink, anchor: isRight ? "end" : "start", size: 11 });
  });
  const turned = svgText(13, top + inner / 2, beside, { fill: colours.quiet, anchor: "middle", size: 12 });
  turned.setAttribute("transform", `rotate(-90 13 ${top + inner / 2})`);
  const svg = svgDrawing(size, top + inner + bottom, ticks,
    line(left, up(0), size - right, up(0), { stroke: colours.quiet }), line(across(0), top, across(0), top + inner, { stroke: colours.quiet }),
    line(across(low), up(low), across(high), up(high), { stroke: colours.quiet, "stroke-dasharray": "5 4" }),
    dots, named, svgText(left + inner / 2, top + inner + 35, below, { fill: colours.quiet, anchor: "middle", size: 12 }), turned);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", title);
  return svg;
}

// Pearson's correlation of pairs; null of fewer than three, or where one side does not differ.
export function correlation(pairs) {
  if (pairs.length < 3) return null;
  const mean = [0, 1].map((side) => pairs.reduce((sum, pair) => sum + pair[side], 0) / pairs.length);
  const product = (a, b) => pairs.reduce((sum, pair) => sum + (pair[a] - mean[a]) * (pair[b] - mean[b]), 0);
  const found = product(0, 1) / Math.sqrt(product(0, 0) * product(1, 1));
  return Number.isFinite(found) ? found : null;
}
