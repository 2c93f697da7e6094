// The figure of attention as a file.
import { brief, css, level, range, SEQUENTIAL } from "./core.js";
import { layout, tokenName } from "./tokens.js";

const escapedXml = (text) => text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);

// The large map as rectangles, its colour bar, and the small maps as one picture.
export function attentionSvg({ scene, values, high, tiles }, title) {
  const [side, top] = [420, 34];
  const place = layout(scene, side, scene.grid[0] / scene.grid[1]);
  const fill = (value) => css(SEQUENTIAL[level(value, 0, high)]);
  const rects = place.boxes.map(([x, y, w, h], i) => `<rect x="${x}" y="${y}" width="${w}" height="${h}" fill="${fill(values[i])}"><title>${escapedXml(tokenName(scene, i))}: ${brief(values[i])}</title></rect>`);
  const bar = range(64).map((i) => `<rect x="${(i * side) / 64}" y="${place.bottom + 8}" width="${side / 64 + 0.5}" height="8" fill="${css(SEQUENTIAL[i * 4])}"/>`);
  const text = (x, y, words, anchor = "start", size = 12) => `<text x="${x}" y="${y}" font-size="${size}" text-anchor="${anchor}">${escapedXml(words)}</text>`;
  const small = tiles.picture();
  const height = top + Math.max(place.bottom + 36, small.height + 10);
  const labels = small.labels.map(([words, x, y]) => text(x, y + 4, words, "middle", 10));
  return `<svg xmlns="http:${"//"}www.w3.org/2000/svg" viewBox="0 0 ${side + 40 + small.width} ${height}" width="${side + 40 + small.width}" height="${height}" font-family="sans-serif" fill="#1d2129">`
    + `<rect width="100%" height="100%" fill="#ffffff"/>${text(10, 20, title, "start", 14)}`
    + `<g transform="translate(10,${top})" shape-rendering="crispEdges">${rects.join("")}${bar.join("")}${text(0, place.bottom + 30, "0")}${text(side, place.bottom + 30, brief(high), "end")}</g>`
    + `<g transform="translate(${side + 30},${top})"><image href="${small.url}" width="${small.width}" height="${small.height}"/>${labels.join("")}</g></svg>`;
}
