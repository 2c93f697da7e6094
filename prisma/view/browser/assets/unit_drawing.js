// A unit over many images, as SVG: how often it is how large, and the images in which it is largest.
import { brief, drawn } from "./core.js";
import { svgDrawing, svgText } from "./drawing.js";
import { histogramDrawing } from "./latent_drawing.js";

const BINS = 32;
const [ACROSS, PICTURE, SPACE, BELOW] = [6, 140, 12, 58]; // images in a row, their width, and what is beside and below each

// {counts, low, high}: how many numbers are in each of equal bins.
export function binsOf(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const counts = Array(high > low ? BINS : 1).fill(0);
  values.forEach((value) => { counts[Math.min(counts.length - 1, Math.floor(((value - low) / (high - low || 1)) * counts.length))] += 1; });
  return { counts, low, high };
}

// The bins with a line at `own`, the number of the image that is looked at; it may lie beyond them.
export function unitHistogram({ counts, low, high }, { width, height, own, colours }) {
  const [from, to] = [Math.min(low, own), Math.max(high, own)];
  const share = (value) => (value - from) / (to - from || 1);
  const ticks = [[from, brief(from)], ...(to > from ? [[to, brief(to)]] : [])];
  const svg = histogramDrawing(counts, { width, height, low: from, high: to, within: [share(low), share(high) || 1], ticks, colours, title: "Images, by the unit's number in them" });
  const x = 8 + share(own) * (width - 16);
  const isRight = share(own) > 0.6;
  const words = svgText(x + (isRight ? -6 : 6), 38, `this image: ${brief(own)}`, { fill: colours.ink, anchor: isRight ? "end" : "start", size: 12, weight: 700 });
  for (const [name, value] of [["stroke", colours.paper], ["stroke-width", 3], ["stroke-linejoin", "round"], ["paint-order", "stroke"]]) words.setAttribute(name, value);
  svg.append(drawn("line", { x1: x, x2: x, y1: 26, y2: height - 22, stroke: colours.ink, "stroke-width": 2, "stroke-dasharray": "4 3" }), words);
  return svg;
}

// All of it below each other, for a file; `lit` has the canvases of the images.
export function unitSheet({ title, said, lit, values, bins, own, colours }) {
  const width = ACROSS * (PICTURE + SPACE) - SPACE + 40;
  const high = Math.max(...lit.map(({ element }) => (PICTURE * element.height) / element.width));
  const images = lit.flatMap(({ element, caption }, i) => {
    const [x, y] = [20 + (i % ACROSS) * (PICTURE + SPACE), 76 + Math.floor(i / ACROSS) * (high + BELOW)];
    const lines = caption.split(/, (?=labelled )/).map((line) => (line.length > 24 ? `${line.slice(0, 23)}…` : line));
    return [drawn("image", { href: element.toDataURL(), x, y, width: PICTURE, height: (PICTURE * element.height) / element.width }),
      svgText(x, y + high + 15, brief(values[i]), { fill: colours.ink, size: 12 }), lines.map((line, k) => svgText(x, y + high + 29 + 13 * k, line, { fill: colours.quiet, size: 10.5 }))];
  });
  const top = 76 + Math.ceil(lit.length / ACROSS) * (high + BELOW);
  const histogram = drawn("g", { transform: `translate(12,${top})` }, ...unitHistogram(bins, { width: width - 24, height: 200, own, colours }).children);
  return svgDrawing(width, top + 210, svgText(20, 30, title, { fill: colours.ink, size: 16, weight: 700 }), svgText(20, 54, said, { fill: colours.quiet, size: 12 }), images, histogram);
}
