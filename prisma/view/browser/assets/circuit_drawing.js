// A circuit as a graph: layers from bottom to top, heads side by side, an MLP to their right; as SVG.
import { drawn, signed } from "./core.js";
import { svgDrawing, svgText } from "./drawing.js";

const [EDGE_RAISES, EDGE_LOWERS] = ["#b5473c", "#3d6fb5"];
const [NODE_WIDE, ROW_TALL, MARGIN] = [84, 46, 26];
const SIDES_OF_HEAD = "qkv";
const wholeOf = (receiver) => receiver.split(".").slice(0, 2).join(".");

// Node -> [column, row]: the embedding below, a row for the heads of a layer, its MLP half a row above, the logits on top.
function circuitPlaces(senders) {
  const heads = 1 + senders.reduce((most, name) => Math.max(most, Number(name.split(".h")[1] ?? 0)), 0);
  const found = new Map([["embed", [(heads - 1) / 2, 0]]]);
  let [row, stem] = [0, ""];
  for (const name of senders.slice(1)) {
    const [own, head] = name.split(".h");
    if (own !== stem) [row, stem] = [row + (own.startsWith("m") ? 0.7 : 1.2), own];
    found.set(name, own.startsWith("m") ? [heads, row] : [Number(head), row]);
  }
  found.set("logits", [(heads - 1) / 2, row + 1.3]);
  return { found, columns: heads + (senders.some((name) => name.startsWith("m")) ? 1 : 0), rows: row + 1.3 };
}

// edges: [{sender, receiver, score}], the score is how the metric changes when the edge is replaced.
export function circuitDrawing({ senders, edges, colours, title }) {
  const { found, columns, rows } = circuitPlaces(senders);
  const [width, height] = [Math.max(360, columns * NODE_WIDE + 2 * MARGIN), rows * ROW_TALL + 2 * MARGIN];
  const left = (width - columns * NODE_WIDE) / 2 + NODE_WIDE / 2;
  const at = (name) => { const [column, row] = found.get(name); return [left + column * NODE_WIDE, height - MARGIN - row * ROW_TALL]; };
  const port = (receiver) => { // a head reads at q, k and v, from left to right
    const [x, y] = at(wholeOf(receiver));
    const side = SIDES_OF_HEAD.indexOf(receiver.split(".")[2] ?? "k");
    return [x + 16 * (side - 1), y + 11];
  };
  const most = Math.max(...edges.map(({ score }) => Math.abs(score)), 1e-12);
  const lines = [...edges].sort((a, b) => Math.abs(a.score) - Math.abs(b.score)).map(({ sender, receiver, score }) => {
    const [[x, y], [toX, toY], share] = [at(sender), port(receiver), Math.abs(score) / most];
    const bend = Math.max(0.35 * (y - toY), 10);
    const path = drawn("path", {
      d: `M${x.toFixed(1)} ${(y - 9).toFixed(1)}C${x.toFixed(1)} ${(y - 9 - bend).toFixed(1)} ${toX.toFixed(1)} ${(toY + bend).toFixed(1)} ${toX.toFixed(1)} ${toY.toFixed(1)}`, fill: "none", "stroke-linecap": "round",
      stroke: score < 0 ? EDGE_RAISES : EDGE_LOWERS, "stroke-width": (0.6 + 4 * share).toFixed(2), "stroke-opacity": (0.3 + 0.65 * share).toFixed(2),
    });
    path.append(drawn("title", {}, `${sender} → ${receiver}: ${signed(score)} when it is replaced`));
    return path;
  });
  const used = new Set(edges.flatMap(({ sender, receiver }) => [sender, wholeOf(receiver)]));
  const nodes = [...found.keys()].map((name) => {
    const [x, y] = at(name);
    if (!used.has(name)) return drawn("circle", { cx: x, cy: y, r: 2.5, fill: colours.line });
    const wide = 14 + 7 * name.length;
    return [drawn("rect", { x: x - wide / 2, y: y - 10, width: wide, height: 20, rx: 5, fill: colours.paper, stroke: colours.quiet }),
      svgText(x, y + 4, name, { fill: colours.ink, anchor: "middle", size: 11.5 })];
  });
  const letters = [...new Set(edges.map(({ receiver }) => receiver).filter((name) => name.split(".").length > 2))].map((name) => {
    const [x, y] = port(name);
    return svgText(x, y + 9, name.slice(-1), { fill: colours.quiet, anchor: "middle", size: 9 });
  });
  const svg = svgDrawing(width, height, lines, nodes, letters);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", title);
  return svg;
}
