// The numbers and the picture of patching, for files.
import { css, DIVERGING, level, range } from "./core.js";

const CELL = 26;
const xml = (text) => String(text).replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);

// A matrix of cells as SVG, at a height: rows are layers.
function svgMatrix(title, rows, { low, high, of, format }, top, wide) {
  const cells = rows.flatMap((values, row) => Array.from(values, (value, column) => {
    if (Number.isNaN(value)) return "";
    const place = `x="${40 + column * wide}" y="${top + 24 + row * CELL}"`;
    const number = wide >= CELL ? `<text x="${40 + (column + 0.5) * wide}" y="${top + 24 + (row + 0.65) * CELL}" text-anchor="middle" font-size="8">${xml(format(of(value)))}</text>` : "";
    return `<rect ${place} width="${wide}" height="${CELL}" fill="${css(DIVERGING[level(of(value), low, high)])}"/>${number}`;
  }));
  const names = rows.map((_, row) => `<text x="32" y="${top + 24 + (row + 0.65) * CELL}" text-anchor="end">${row}</text>`);
  return `<text x="8" y="${top + 14}">${xml(title)}</text>${names.join("")}${cells.join("")}`;
}

export function patchExport(figure) {
  const { known, facts, scene, scale, state } = figure;
  const numbers = {};
  for (const [name, axis] of [["heads", "head"], ["tokens", "token"]]) {
    const shape = [scene.layers, known.counts[axis]];
    const axes = ["layer", axis];
    numbers[name] = { axes, shape, values: known[axis].values };
    numbers[`${name}_exact`] = { axes, shape, values: known[axis].exact };
    if (facts.gap !== null) numbers[`${name}_recovered`] = { axes, shape, values: Float32Array.from(known[axis].values, (value) => figure.recovered(value)) };
  }
  const svg = () => {
    const tokens = known.counts.token;
    const thin = Math.max(3, Math.min(CELL, 700 / tokens));
    const below = 70 + scene.layers * CELL;
    const width = Math.max(420, 60 + scene.heads * 40, 60 + tokens * thin);
    const bar = range(64).map((i) => `<rect x="${40 + i * 4}" y="${below + scene.layers * CELL + 40}" width="4" height="10" fill="${css(DIVERGING[i * 4 + 2])}"/>`).join("");
    const ends = [[40, scale.low], [168, scale.middle], [296, scale.high]].map(([x, value]) => `<text x="${x}" y="${below + scene.layers * CELL + 64}" text-anchor="middle">${xml(scale.format(value))}</text>`).join("");
    const what = scale.isShare ? "recovered share of the gap" : facts.metric;
    return `<svg xmlns="http${":"}//www.w3.org/2000/svg" width="${width}" height="${below + scene.layers * CELL + 76}" font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#ffffff"/>`
      + `<text x="8" y="16">${xml(`Patching, ${facts.metric}: ${what}, into the ${facts.state.into} run`)}</text>`
      + svgMatrix("Layer by head (attn.z)", known.rows("head"), scale, 20, 40) + svgMatrix(`Layer by token (${state.site})`, known.rows("token"), scale, below, thin) + bar + ends + "</svg>";
  };
  return { name: "patching", title: `Patching: ${facts.metric}`, numbers, svg, code: facts.code };
}
