// The numbers and the picture of patching, for files.
import { palette, svgString } from "./drawing.js";
import { css, DIVERGING, level, range } from "./core.js";

const PATCH_CELL = 26;
const patchXml = (text) => String(text).replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);

// A matrix of cells as SVG, at a height: rows are layers.
function svgMatrix(title, rows, { low, high, of, format }, top, wide) {
  const cells = rows.flatMap((values, row) => Array.from(values, (value, column) => {
    if (Number.isNaN(value)) return "";
    const place = `x="${40 + column * wide}" y="${top + 24 + row * PATCH_CELL}"`;
    const rgb = DIVERGING[level(of(value), low, high)];
    const ink = rgb[0] * 0.3 + rgb[1] * 0.59 + rgb[2] * 0.11 > 120 ? "#10131a" : "#ffffff";
    const number = wide >= PATCH_CELL ? `<text x="${40 + (column + 0.5) * wide}" y="${top + 24 + (row + 0.65) * PATCH_CELL}" text-anchor="middle" font-size="8" fill="${ink}">${patchXml(format(of(value)))}</text>` : "";
    return `<rect ${place} width="${wide}" height="${PATCH_CELL}" fill="${css(rgb)}"/>${number}`;
  }));
  const names = rows.map((_, row) => `<text x="32" y="${top + 24 + (row + 0.65) * PATCH_CELL}" text-anchor="end">${row}</text>`);
  return `<text x="8" y="${top + 14}">${patchXml(title)}</text>${names.join("")}${cells.join("")}`;
}

function svgBar(name, { ticks }, top) {
  const strip = range(64).map((i) => `<rect x="${80 + i * 5}" y="${top}" width="5" height="10" fill="${css(DIVERGING[i * 4 + 2])}"/>`);
  const ends = ticks.map(([place, text]) => `<text x="${80 + 320 * place}" y="${top + 22}" text-anchor="middle">${patchXml(text)}</text>`);
  return `<text x="8" y="${top + 9}">${name}</text>${strip.join("")}${ends.join("")}`;
}

export function patchExport(figure) {
  const { known, facts, scene, state } = figure;
  const scales = { head: figure.scale("head"), token: figure.scale("token") };
  const numbers = {};
  for (const [name, axis] of [["heads", "head"], ["tokens", "token"]]) {
    const shape = [scene.layers, known.counts[axis]];
    const axes = ["layer", axis];
    numbers[name] = { axes, shape, values: known[axis].values };
    numbers[`${name}_exact`] = { axes, shape, values: known[axis].exact };
    if (facts.gap !== null) numbers[`${name}_recovered`] = { axes, shape, values: Float32Array.from(known[axis].values, (value) => figure.recovered(value)) };
  }
  const more = [["Estimates beside exact runs", figure.estimates], ["Paths", figure.paths], ["Circuit", figure.circuit]].map(([title, panel]) => ({ title, ...panel.exported() })).filter((panel) => panel.numbers);
  more.forEach((panel) => Object.assign(numbers, panel.numbers));
  const svg = () => {
    const tokens = known.counts.token;
    const thin = Math.max(3, Math.min(PATCH_CELL, 700 / tokens));
    const below = 70 + scene.layers * PATCH_CELL;
    const sideOf = (panel, side) => Number(panel.svg.getAttribute(side));
    const width = Math.max(460, ...more.map((panel) => sideOf(panel, "width")), 60 + scene.heads * 40, 60 + tokens * thin);
    const foot = below + scene.layers * PATCH_CELL + 34;
    const what = scales.head.isShare ? "recovered share of the gap" : facts.metric;
    let tall = foot + 76;
    const graphs = more.map((panel) => {
      const at = tall;
      tall += sideOf(panel, "height") + 28;
      return `<text x="8" y="${at + 8}">${panel.title}</text><g transform="translate(0,${at + 14})">${[...panel.svg.children].map(svgString).join("")}</g>`;
    });
    const bars = svgBar("heads", scales.head, foot) + svgBar("tokens", scales.token, foot + 34);
    return `<svg xmlns="http${":"}//www.w3.org/2000/svg" viewBox="0 0 ${width} ${tall}" width="${width}" height="${tall}" font-family="sans-serif" font-size="11" fill="${palette(figure.root).ink}">`
      + `<text x="8" y="16">${patchXml(`Patching, ${facts.metric}: ${what}, into the ${facts.state.into} run`)}</text>`
      + svgMatrix("Layer by head (attn.z)", known.rows("head"), scales.head, 20, 40) + svgMatrix(`Layer by token (${state.site})`, known.rows("token"), scales.token, below, thin) + bars + graphs.join("") + "</svg>";
  };
  return { name: "patching", title: `Patching: ${facts.metric}`, numbers, names: Object.assign({}, ...more.map((panel) => panel.names)), svg, code: facts.code + more.map((panel) => panel.code).join("") };
}
