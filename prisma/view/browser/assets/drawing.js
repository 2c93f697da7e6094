// SVG of figures, for the page and for files. Colours stand in it as attributes, so that a file looks as the page does;
// text only ever becomes text nodes, which XMLSerializer escapes.
import { brief, css, drawn, level, node } from "./core.js";

export const LINES = ["#3d6fb5", "#c2503f", "#b3831b", "#2a8f7f", "#8a5fa3", "#6f7683"];

// The colours of the page around an element: {ink, quiet, line, paper, accent}.
export function palette(element) {
  const style = getComputedStyle(element);
  const of = (name, fallback) => style.getPropertyValue(`--pz-${name}`).trim() || fallback;
  return { ink: of("ink", "#1d2129"), quiet: of("quiet", "#5d6675"), line: of("line", "#dfe2e8"), paper: of("paper", "#ffffff"), accent: of("accent", "#3d5a98") };
}

export const svgText = (x, y, words, { fill, anchor = "start", size = 12, weight = 400 }) => drawn("text", {
  x, y, fill, "text-anchor": anchor, "font-size": size, "font-weight": weight, "font-family": "system-ui, sans-serif",
}, words);

// The drawing of a figure; `text` makes its string.
export function svgDrawing(width, height, ...children) {
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
  svg.append(...children.flat(Infinity));
  return svg;
}
export const svgString = (svg) => new XMLSerializer().serializeToString(svg);

// Numbers [rows][columns], in one array, as coloured cells. A missing number is no cell.
export function svgHeat({ x, y, width, height, rows, columns, values, map, low, high }) {
  // Neighbours share an edge to the last digit, or a white line would show between them.
  const edges = (start, size, count) => Array.from({ length: count + 1 }, (_, i) => Number((start + (i * size) / count).toFixed(2)));
  const [xs, ys] = [edges(x, width, columns), edges(y, height, rows)];
  const cells = drawn("g", { "shape-rendering": "crispEdges" });
  for (let i = 0; i < rows * columns; i += 1) {
    if (!Number.isFinite(values[i])) continue;
    const [column, row] = [i % columns, Math.floor(i / columns)];
    cells.append(drawn("rect", {
      x: xs[column], y: ys[row], width: (xs[column + 1] - xs[column]).toFixed(2), height: (ys[row + 1] - ys[row]).toFixed(2), fill: css(map[level(values[i], low, high)]),
    }));
  }
  return cells;
}

// A colour bar with its numbers: ticks are [[place in 0..1, text], ...].
export function svgColourBar({ x, y, width, map, ticks, colours, title }) {
  const strip = svgHeat({ x, y, width, height: 9, rows: 1, columns: 64, values: [...Array(64).keys()], map, low: 0, high: 63 });
  const anchor = (place) => (place < 0.1 ? "start" : place > 0.9 ? "end" : "middle");
  return [strip, ticks.map(([place, text]) => svgText(x + place * width, y + 23, text, { fill: colours.quiet, anchor: anchor(place), size: 11 })),
    svgText(x + width + 10, y + 9, title, { fill: colours.quiet, size: 11 })];
}

// Where numbers stand on an axis: about four round ones between two ends.
export function roundTicks(low, high) {
  const rough = (high - low) / 4 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * unit).find((some) => some >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-6; i += 1) found.push(i * step);
  return found;
}
const tickText = (value) => (value === 0 ? "0" : String(Number(value.toPrecision(6))));

// Horizontal lines with their numbers.
export function svgAxis({ x, width, low, high, place, colours }) {
  return roundTicks(low, high).map((value) => [
    drawn("line", { x1: x, x2: x + width, y1: place(value), y2: place(value), stroke: value === 0 ? colours.quiet : colours.line, "stroke-width": 1 }),
    svgText(x - 6, place(value) + 4, tickText(value), { fill: colours.quiet, anchor: "end", size: 11 }),
  ]);
}

export const pointsOf = (values, across, place) => Array.from(values, (value, i) => `${across(i).toFixed(1)},${place(value).toFixed(1)}`).join(" ");

// A table of cells, for those who do not see a figure.
export function tableOf(headings, rows) {
  const head = node("thead", {}, node("tr", {}, ...headings.map((text) => node("th", { scope: "col" }, text))));
  const body = node("tbody", {}, ...rows.map((cells) => node("tr", {}, ...cells.map((text) => node("td", {}, typeof text === "number" ? brief(text) : text)))));
  return node("table", {}, head, body);
}
