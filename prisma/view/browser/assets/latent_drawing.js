// Histograms of latents, as SVG.
import { drawn } from "./core.js";
import { svgDrawing, svgText } from "./drawing.js";

// counts of equal bins; ticks are [[value, text], ...] from low to high, of which the bins take the part `within`.
export function histogramDrawing(counts, { width, height, low, high, ticks, colours, title, within = [0, 1] }) {
  const [left, top, bottom] = [8, 24, 22];
  const [wide, tall, most] = [width - 2 * left, height - top - bottom, Math.max(...counts) || 1];
  const [start, span] = [left + within[0] * wide, (within[1] - within[0]) * wide];
  const bars = counts.map((count, i) => {
    const size = count ? Math.max(1.5, (count / most) * tall) : 0;
    const bar = drawn("rect", { x: (start + (i * span) / counts.length + 0.5).toFixed(2), y: (top + tall - size).toFixed(2), width: Math.max(1, span / counts.length - 1).toFixed(2), height: size.toFixed(2), fill: colours.accent });
    bar.append(drawn("title", {}, count.toLocaleString("en")));
    return bar;
  });
  const place = (value) => left + ((value - low) / (high - low || 1)) * wide;
  const anchor = (value) => (value === low ? "start" : value === high ? "end" : "middle");
  const svg = svgDrawing(width, height, svgText(left, 14, title, { fill: colours.quiet, size: 12 }), bars,
    drawn("line", { x1: left, x2: left + wide, y1: top + tall, y2: top + tall, stroke: colours.line }),
    ticks.map(([value, text]) => svgText(place(value), height - 6, text, { fill: colours.quiet, anchor: anchor(value), size: 11 })));
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", title);
  return svg;
}
