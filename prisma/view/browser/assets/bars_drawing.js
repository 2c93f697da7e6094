// Bars that sum to a number, as SVG: from zero, or each from where the one before it ends.
import { drawn } from "./core.js";
import { svgAxis, svgDrawing, svgText } from "./drawing.js";

const TALLEST = 300;
const RAISES = "#b5473c";
const LOWERS = "#3d6fb5";

// The parts of each group as one part.
export function grouped(parts) {
  const sums = new Map();
  for (const { group, value } of parts) sums.set(group, (sums.get(group) || 0) + value);
  return [...sums].map(([group, value]) => ({ name: group, group, value }));
}

export function ordered(parts, order) {
  return order === "size" ? [...parts].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)) : parts;
}

// -> {svg, left, wide, band}: where bars begin, how wide each is, and the box that marks one.
export function barsDrawing(parts, { width, start, total, colours, ordered: inOrder, title }) {
  const [left, right, top, bottom] = [48, 14, title ? 40 : 12, 30];
  const wide = (width - left - right) / parts.length;
  const ends = [];
  let sum = 0;
  for (const { value } of parts) {
    const from = start === "sum" ? sum : 0;
    ends.push([from, from + value]);
    sum += value;
  }
  const edges = [0, ...(start === "sum" ? [total] : []), ...ends.flat()];
  const [low, high] = [Math.min(...edges), Math.max(...edges)];
  const reach = high - low || 1;
  const place = (value) => top + ((high + reach * 0.04 - value) / (reach * 1.08)) * (TALLEST - top);
  const gap = wide > 6 ? 2 : wide > 3 ? 1 : 0;
  const bars = parts.map(({ value }, i) => {
    const [y, other] = [place(Math.max(...ends[i])), place(Math.min(...ends[i]))];
    return drawn("rect", { x: (left + i * wide + gap / 2).toFixed(2), y: y.toFixed(2), width: (wide - gap).toFixed(2), height: Math.max(other - y, 0.75).toFixed(2), fill: value < 0 ? LOWERS : RAISES });
  });
  const band = drawn("rect", { x: left, y: top, width: wide.toFixed(2), height: TALLEST - top, fill: colours.ink, opacity: 0.12 });
  const whole = start === "sum" ? [
    drawn("line", { x1: left, x2: width - right, y1: place(total), y2: place(total), stroke: colours.accent, "stroke-width": 1.5, "stroke-dasharray": "5 4" }),
    svgText(width - right, place(total) - 5, `the model: ${total.toFixed(3)}`, { fill: colours.ink, anchor: "end", size: 11 }),
  ] : [];
  const svg = svgDrawing(width, TALLEST + bottom,
    title ? svgText(8, 22, title, { fill: colours.ink, size: 14, weight: 700 }) : [],
    svgAxis({ x: left, width: width - left - right, low, high, place, colours }), title ? [] : band, bars, whole,
    inOrder ? groupNames(parts, { left, wide, top, colours }) : svgText(left, TALLEST + 18, "largest first", { fill: colours.quiet, size: 11 }));
  return { svg, left, wide, band };
}

// "emb", "0", "1", ..., "out" below the parts of each group, with a line between groups.
function groupNames(parts, { left, wide, top, colours }) {
  const groups = [];
  parts.forEach(({ group }, i) => {
    if (groups.at(-1)?.group === group) groups.at(-1).to = i + 1;
    else groups.push({ group, from: i, to: i + 1 });
  });
  const short = (group) => group.replace("embedding", "emb").replace("readout", "out").replace(/^layer /, "");
  return groups.map(({ group, from, to }) => {
    const [x, end] = [left + from * wide, left + to * wide];
    const roomy = end - x > 58 ? group : short(group);
    return [
      from ? drawn("line", { x1: x.toFixed(2), x2: x.toFixed(2), y1: top, y2: TALLEST + 8, stroke: colours.line, "stroke-width": 1 }) : [],
      end - x >= 7 * roomy.length || roomy.length < 3 ? svgText((x + end) / 2, TALLEST + 18, roomy, { fill: colours.quiet, anchor: "middle", size: 11 }) : [],
    ];
  });
}
