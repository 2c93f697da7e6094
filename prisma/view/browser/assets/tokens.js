import { css, level, node, sharp } from "./core.js";

const MOST_NUMBERED = 100; // tokens whose numbers are written on a map

// A map over the tokens of an image: patches as a grid over the picture, prefix tokens as boxes above it.

// "class", "register 1", "row 2, column 3": tokens as people say them; the prefix comes first, then patches by rows.
export function tokenName(scene, token) {
  if (token < scene.prefix.length) return scene.prefix[token];
  const patch = token - scene.prefix.length;
  return `row ${Math.floor(patch / scene.grid[1]) + 1}, column ${(patch % scene.grid[1]) + 1}`;
}
export const countTokens = (scene) => scene.prefix.length + scene.grid[0] * scene.grid[1];

// The token that an arrow key leads to.
export function neighbour(scene, token, key) {
  const [rows, columns] = scene.grid;
  const first = scene.prefix.length;
  if (token < first) {
    if (key === "ArrowDown") return first + Math.min(token, columns - 1);
    return Math.max(0, Math.min(first - 1, token + ({ ArrowLeft: -1, ArrowRight: 1 }[key] || 0)));
  }
  const row = Math.floor((token - first) / columns) + ({ ArrowUp: -1, ArrowDown: 1 }[key] || 0);
  const column = ((token - first) % columns) + ({ ArrowLeft: -1, ArrowRight: 1 }[key] || 0);
  if (row < 0 && first) return Math.min(column, first - 1);
  return first + Math.max(0, Math.min(rows - 1, row)) * columns + Math.max(0, Math.min(columns - 1, column));
}

// Boxes [x, y, width, height] of all tokens in a map of a given width; `bottom` is its height.
export function layout(scene, width, aspect) {
  const [rows, columns] = scene.grid;
  const n = scene.prefix.length;
  const top = n ? Math.max(22, Math.min(30, width / 8)) : 0;
  const above = n ? top + 4 : 0;
  const height = width * aspect;
  const boxes = scene.prefix.map((_, i) => [(i * width) / n + (i ? 1 : 0), 0, width / n - (i ? 1 : 0), top]);
  for (let p = 0; p < rows * columns; p += 1) {
    const [x, y] = [((p % columns) * width) / columns, above + (Math.floor(p / columns) * height) / rows];
    boxes.push([x, y, width / columns, height / rows]);
  }
  return { boxes, above, height, bottom: above + height };
}

export function outline(context, [x, y, width, height], dashes = []) {
  context.setLineDash(dashes);
  for (const [style, line] of [["rgba(0,0,0,.85)", 4], ["#ffffff", 2]]) {
    context.strokeStyle = style;
    context.lineWidth = line;
    context.strokeRect(x + 2, y + 2, width - 4, height - 4);
  }
}

// Text that can be read on its colour.
export function label(context, text, [x, y, width, height], bright) {
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = 2.5;
  context.lineJoin = "round";
  context.strokeStyle = bright ? "rgba(255,255,255,.55)" : "rgba(0,0,0,.6)";
  context.strokeText(text, x + width / 2, y + height / 2 + 0.5);
  context.fillStyle = bright ? "#10131a" : "#ffffff";
  context.fillText(text, x + width / 2, y + height / 2 + 0.5);
}

// A map of one number for each token. draw({scene, image, values, map, low, high, opacity, marked, other, format}):
// `marked` is the token that the map is of, `other` one that it is compared with,
// `map` is 256 colours [red, green, blue], `pixels` the same at 32 bits; only below opacity 1, the default, does the picture
// show through the patches, whose colours are then no longer those of the colour bar.
// handlers: over(token), out(), pick(token); each is optional.
export function tokenMap(name, handlers) {
  const canvas = node("canvas", { class: "pz-map", role: "img", "aria-label": name });
  const small = document.createElement("canvas"); // a pixel for each patch
  let shown = null;
  let width = 0;
  const aspect = () => (shown.image ? shown.image.height / shown.image.width : shown.scene.grid[0] / shown.scene.grid[1]);
  const numbersOf = (context, place) => {
    const first = shown.scene.prefix.length;
    for (let token = 0; token < place.boxes.length; token += 1) {
      const box = place.boxes[token];
      if (token >= first && (box[2] < 34 || place.boxes.length > MOST_NUMBERED || !shown.format)) return;
      const rgb = shown.map[level(shown.values[token], shown.low, shown.high)];
      const size = Math.min(12, Math.max(10, box[2] / 5));
      context.font = `500 ${size}px ui-monospace, SFMono-Regular, Menlo, monospace`;
      const number = (shown.format || String)(shown.values[token]);
      const texts = token < first ? [`${shown.scene.prefix[token]}  ${number}`, number] : [number];
      const text = texts.find((some) => context.measureText(some).width < box[2] - 8);
      if (text && box[3] > size + 4) label(context, text, box, rgb[0] * 0.3 + rgb[1] * 0.59 + rgb[2] * 0.11 > 150);
    }
  };
  const paintAll = () => {
    width = canvas.clientWidth || width || 240;
    const { scene, values, image, low, high, map, pixels } = shown;
    const place = layout(scene, width, aspect());
    const context = sharp(canvas, width, place.bottom);
    const [first, [rows, columns]] = [scene.prefix.length, scene.grid];
    context.imageSmoothingEnabled = false;
    if (image && shown.opacity < 1) {
      context.imageSmoothingEnabled = image.width >= width;
      context.filter = "grayscale(1)"; // colours are the map's
      context.drawImage(image, 0, place.above, width, place.height);
      context.filter = "none";
      context.imageSmoothingEnabled = false;
    }
    for (let token = 0; token < first; token += 1) {
      context.fillStyle = css(map[level(values[token], low, high)]);
      context.fillRect(...place.boxes[token]);
    }
    if (small.width !== columns || small.height !== rows) Object.assign(small, { width: columns, height: rows });
    const data = new ImageData(columns, rows);
    const target = new Uint32Array(data.data.buffer);
    for (let p = 0; p < rows * columns; p += 1) target[p] = pixels[level(values[first + p], low, high)];
    small.getContext("2d").putImageData(data, 0, 0);
    context.globalAlpha = image ? shown.opacity : 1;
    context.drawImage(small, 0, place.above, width, place.height);
    context.globalAlpha = 1;
    numbersOf(context, place);
    if (shown.marked !== undefined && shown.marked !== null) outline(context, place.boxes[shown.marked]);
    if (shown.other !== undefined && shown.other !== null) outline(context, place.boxes[shown.other], [4, 3]);
  };
  const hit = (event) => {
    if (!shown) return -1;
    const bounds = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    const { boxes } = layout(shown.scene, bounds.width, aspect());
    return boxes.findIndex((box) => x >= box[0] && x < box[0] + box[2] && y >= box[1] && y < box[1] + box[3]);
  };
  const listen = (type, handler) => handler && canvas.addEventListener(type, (event) => {
    const token = hit(event);
    if (token >= 0) handler(token, event);
  });
  listen("pointermove", handlers.over);
  listen("click", handlers.pick);
  if (handlers.out) canvas.addEventListener("pointerleave", handlers.out);
  new ResizeObserver(() => shown && canvas.clientWidth && canvas.clientWidth !== width && paintAll()).observe(canvas);
  const draw = (what) => {
    shown = { opacity: 1, ...what };
    paintAll();
  };
  return { element: canvas, draw };
}

// The strongest tokens in words, for those who do not see the map.
export function strongest(scene, values, count, format) {
  const order = Array.from(values, (value, token) => [value, token]).sort((a, b) => b[0] - a[0]).slice(0, count);
  return order.map(([value, token]) => [tokenName(scene, token), format(value)]);
}
