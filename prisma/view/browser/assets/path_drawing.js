// Paths as pairs of bars from zero: one for each form of path patching; as SVG.
import { drawn, signed } from "./core.js";
import { roundTicks, svgDrawing, svgText } from "./drawing.js";

export const FORM_COLOURS = ["#3d6fb5", "#d08a2e"]; // frozen, recomputed
const PATH_ROW = { tall: 34, bar: 10, left: 138, right: 30, top: 8, bottom: 40 };

// rows: [{name, values: [of each form], differs}]; a row whose signs differ has a mark at its end.
export function pathDrawing(rows, { width, colours, title, below }) {
  const { tall, bar, left, right, top, bottom } = PATH_ROW;
  const all = rows.flatMap(({ values }) => values);
  const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
  const inner = width - left - right;
  const across = (value) => left + ((value - low) / (high - low || 1)) * inner;
  const base = top + rows.length * tall;
  const ticks = roundTicks(low, high).map((value) => [
    drawn("line", { x1: across(value), x2: across(value), y1: top, y2: base, stroke: value === 0 ? colours.quiet : colours.line }),
    svgText(across(value), base + 15, String(Number(value.toPrecision(6))), { fill: colours.quiet, anchor: "middle", size: 11 }),
  ]);
  const drawnRows = rows.map(({ name, values, differs }, i) => {
    const y = top + i * tall;
    const bars = values.map((value, form) => {
      const rect = drawn("rect", { x: Math.min(across(0), across(value)).toFixed(1), y: y + 6 + form * (bar + 1), width: Math.max(0.8, Math.abs(across(value) - across(0))).toFixed(1), height: bar, fill: FORM_COLOURS[form] });
      rect.append(drawn("title", {}, `${name}: ${signed(value)}`));
      return rect;
    });
    const mark = differs ? svgText(width - right + 8, y + 22, "±", { fill: colours.ink, size: 17, weight: 700 }) : [];
    return [svgText(left - 10, y + 21, name, { fill: colours.ink, anchor: "end", size: 12, weight: differs ? 700 : 400 }), bars, mark];
  });
  const svg = svgDrawing(width, base + bottom, ticks, drawnRows, svgText(left + inner / 2, base + 33, below, { fill: colours.quiet, anchor: "middle", size: 12 }));
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", title);
  return svg;
}
