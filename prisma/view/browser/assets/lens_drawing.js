// The logit lens as one SVG: the table, the class on the image at every stage, and the curves.
import { range, SEQUENTIAL } from "./core.js";
import { LINES, palette, svgColourBar, svgDrawing, svgHeat, svgString, svgText } from "./drawing.js";
import { stageChart } from "./stage_curves.js";

export function lensDrawing({ lens, facts, scene, state, labels, short, high, mapHigh, curveHigh, chosen, root }) {
  const colours = palette(root);
  const [left, top, width, tall] = [50, 40, 960, 20];
  const wide = width / lens.tokens;
  const parts = [svgText(8, 22, "Logit lens: the likeliest class of every token at every stage", { fill: colours.ink, size: 14, weight: 700 })];
  const values = range(lens.stages).flatMap((s) => range(lens.tokens).map((t) => lens.first(s, t)[1]));
  parts.push(svgHeat({ x: left, y: top, width, height: tall * lens.stages, rows: lens.stages, columns: lens.tokens, values, map: SEQUENTIAL, low: 0, high }));
  short.forEach((name, s) => parts.push(svgText(left - 6, top + (s + 0.7) * tall, name, { fill: colours.quiet, anchor: "end", size: 11 })));
  if (wide >= 40) {
    range(lens.stages).forEach((s) => range(lens.tokens).forEach((t) => {
      const [best, value] = lens.first(s, t);
      parts.push(svgText(left + (t + 0.5) * wide, top + (s + 0.68) * tall, Array.from(labels[best]).slice(0, Math.floor(wide / 7)).join(""), { fill: value > high * 0.6 ? "#10131a" : "#ffffff", anchor: "middle", size: 10 }));
    }));
  }
  let y = top + tall * lens.stages + 10;
  parts.push(svgColourBar({ x: left, y, width: 240, map: SEQUENTIAL, ticks: [[0, "0"], [1, high.toFixed(3)]], colours, title: "probability of the likeliest class" }));
  y += 46;
  if (!scene.flat) y = classMaps(parts, { lens, scene, state, labels, short, mapHigh, colours, left, width, y });
  parts.push(svgText(8, y, "Probability of classes over the layers, for the whole image", { fill: colours.ink, size: 13, weight: 700 }));
  const { svg, mark } = stageChart(chosen.map((c) => ({ values: lens.readout.map((row) => row[c]) })), short, curveHigh, colours);
  mark.remove();
  svg.setAttribute("x", 0);
  svg.setAttribute("y", y + 6);
  parts.push(svg);
  chosen.forEach((c, i) => parts.push(svgText(590, y + 40 + 20 * i, labels[c], { fill: LINES[i % LINES.length], size: 12, weight: 700 })));
  return svgString(svgDrawing(left + width + 20, y + 270, parts));
}

function classMaps(parts, { lens, scene, state, labels, short, mapHigh, colours, left, width, y }) {
  const [rows, columns] = scene.grid;
  const side = Math.min(120, width / lens.stages - 6);
  const column = lens.column(state.target);
  parts.push(svgText(8, y, `${labels[state.target]} at every patch alone`, { fill: colours.ink, size: 13, weight: 700 }));
  range(lens.stages).forEach((s) => {
    const x = left + s * (side + 6);
    const patches = column.slice(s * lens.tokens + scene.prefix.length, (s + 1) * lens.tokens);
    parts.push(svgHeat({ x, y: y + 12, width: side, height: (side * rows) / columns, rows, columns, values: patches, map: SEQUENTIAL, low: 0, high: mapHigh }));
    parts.push(svgText(x + side / 2, y + 26 + (side * rows) / columns, short[s], { fill: colours.quiet, anchor: "middle", size: 11 }));
  });
  const bottom = y + 38 + (side * rows) / columns;
  parts.push(svgColourBar({ x: left, y: bottom, width: 240, map: SEQUENTIAL, ticks: [[0, "0"], [1, mapHigh.toFixed(3)]], colours, title: "probability of this class" }));
  return bottom + 56;
}
