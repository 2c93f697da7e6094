// A dose-response curve with its interval, those of random directions, and one image; as SVG.
import { drawn } from "./core.js";
import { pointsOf, svgAxis, svgDrawing, svgText } from "./drawing.js";

export const DOSE_COLOURS = { mean: "#3d6fb5", own: "#c2503f", random: "#8a93a3" };
const DOSE_CHART = { left: 46, right: 16, top: 12, bottom: 44 };

// doses, mean [dose]; low, high [dose]; random [[dose], ...]; own [dose]. Without a curve yet, `mean` is null.
export function doseDrawing({ doses, mean, low, high, random, own, at }, { width, height, colours, title, below }) {
  const { left, right, top, bottom } = DOSE_CHART;
  const [first, last] = [doses[0], doses.at(-1)];
  const across = (dose) => left + ((dose - first) / (last - first || 1)) * (width - left - right);
  const place = (value) => top + (1 - value) * (height - top - bottom);
  const of = (values, more) => drawn("polyline", { points: pointsOf(values, (i) => across(doses[i]), place), fill: "none", "stroke-linejoin": "round", ...more });
  const dots = (values, fill, r) => Array.from(values, (value, i) => drawn("circle", { cx: across(doses[i]).toFixed(1), cy: place(value).toFixed(1), r, fill }));
  const edge = (values) => Array.from(values, (value, i) => `${across(doses[i]).toFixed(1)},${place(value).toFixed(1)}`);
  const curve = mean ? [
    random.map((values) => of(values, { stroke: DOSE_COLOURS.random, "stroke-width": 1, "stroke-opacity": 0.8 })),
    drawn("polygon", { points: [...edge(high), ...edge(low).reverse()].join(" "), fill: DOSE_COLOURS.mean, "fill-opacity": 0.22 }),
    of(mean, { stroke: DOSE_COLOURS.mean, "stroke-width": 2.2 }), dots(mean, DOSE_COLOURS.mean, 3.2),
  ] : [];
  const every = doses.length * 28 > width ? 4 : 2; // from the first to the last, and 0 between them
  const zero = drawn("line", { x1: across(0), x2: across(0), y1: top, y2: height - bottom, stroke: colours.line });
  const mark = drawn("line", { x1: across(at), x2: across(at), y1: top, y2: height - bottom, stroke: colours.ink, "stroke-width": 1.5, "stroke-dasharray": "3 3", class: "pz-dose-mark" });
  const svg = svgDrawing(width, height, svgAxis({ x: left, width: width - left - right, low: 0, high: 1, place, colours }), zero,
    doses.map((dose, i) => (i % every ? [] : svgText(across(dose), height - bottom + 17, String(dose), { fill: colours.quiet, anchor: "middle", size: 11 }))),
    svgText(left + (width - left - right) / 2, height - 7, below, { fill: colours.quiet, anchor: "middle", size: 12 }),
    curve, of(own, { stroke: DOSE_COLOURS.own, "stroke-width": 1.8, "stroke-dasharray": "6 4" }), dots(own, DOSE_COLOURS.own, 2.4), mark);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", title);
  return { svg, across };
}
