// Many small maps, a pixel for each patch: every head of every layer, or one head at every training step. What is under
// the pointer changes nothing but pixels: names and the mark of the chosen tile are elements above the canvas.
import { node, SEQUENTIAL_PIXELS } from "./core.js";

const TILES_TALLEST = 560; // CSS pixels of all tiles together
const TILE_WIDEST = 150; // of one tile
const TILE_CAPTION = 15;
const TILE_MARGIN = 20;
const LETTER = 6.7;

// Tiles in as many equal rows as make them largest -> {boxes: [[x, y, width, height]], labels, height}.
function flowOfTiles(names, { widest = TILE_WIDEST, tallest = TILES_TALLEST }, width, aspect) {
  const columnsOf = (rows) => Math.ceil(names.length / rows);
  const sideOf = (rows) => Math.min(widest, width / columnsOf(rows), (tallest / rows - TILE_CAPTION) / aspect);
  let rows = 1;
  for (let more = 2; more <= names.length; more += 1) if (sideOf(more) > sideOf(rows)) rows = more;
  const columns = columnsOf(rows);
  const side = Math.max(14, sideOf(rows));
  const boxes = names.map((_, i) => [(i % columns) * side, Math.floor(i / columns) * (side * aspect + TILE_CAPTION), side - 2, side * aspect - 2]);
  const fitting = (texts) => [texts].flat().find((text) => text.length * LETTER < side) ?? "";
  const labels = boxes.map(([x, y], i) => [fitting(names[i]), x + side / 2, y + side * aspect + TILE_CAPTION / 2 - 1]);
  return { boxes, labels, height: Math.ceil(names.length / columns) * (side * aspect + TILE_CAPTION) };
}

// A row of tiles for each layer; where that leaves the width empty, in several blocks side by side.
function matrixOfTiles(layers, heads, width, aspect) {
  const rowsOf = (blocks) => Math.ceil(layers.length / blocks);
  const sideOf = (blocks) => Math.min(TILE_WIDEST, (width - blocks * TILE_MARGIN) / (blocks * heads), (TILES_TALLEST - TILE_MARGIN) / rowsOf(blocks) / aspect);
  let blocks = 1;
  for (let more = 2; more <= layers.length; more += 1) if (sideOf(more) > sideOf(blocks)) blocks = more;
  const side = Math.max(10, sideOf(blocks));
  const [rows, tall, wide] = [rowsOf(blocks), side * aspect, heads * side + TILE_MARGIN];
  const labels = [];
  const boxes = [];
  layers.forEach((layer, i) => {
    const [left, top] = [Math.floor(i / rows) * wide, TILE_MARGIN + (i % rows) * tall];
    labels.push([String(layer), left + TILE_MARGIN / 2 - 2, top + tall / 2]);
    for (let head = 0; head < heads; head += 1) {
      const x = left + TILE_MARGIN + head * side;
      if (i % rows === 0 && side >= 12) labels.push([String(head), x + side / 2, TILE_MARGIN / 2 - 2]);
      boxes.push([x, top, side - 2, tall - 2]);
    }
  });
  return { boxes, labels, height: TILE_MARGIN + rows * tall };
}

// handlers: pick(i), over(i), out(); i is the place in the list of tiles.
export class Tiles {
  constructor(name, handlers) {
    this.canvas = node("canvas", { class: "pz-heads", role: "img", "aria-label": name });
    this.labels = node("div", { class: "pz-tile-labels", "aria-hidden": "true" });
    this.mark = node("div", { class: "pz-tile-mark", hidden: true, "aria-hidden": "true" });
    this.title = node("figcaption", {}, name);
    this.element = node("figure", { class: "pz-figure pz-overview" }, this.title, node("div", { class: "pz-tiles" }, this.canvas, this.labels, this.mark));
    this.small = document.createElement("canvas");
    const listen = (type, handler) => handler && this.canvas.addEventListener(type, (event) => {
      const i = this.hit(event);
      if (i >= 0) handler(i);
      else if (type === "pointermove") handlers.out();
    });
    listen("click", handlers.pick);
    listen("pointermove", handlers.over);
    if (handlers.out) this.canvas.addEventListener("pointerleave", handlers.out);
    new ResizeObserver(() => {
      const width = this.canvas.clientWidth;
      if (!width || width === this.width) return;
      this.width = width;
      if (this.what) this.draw(this.what);
    }).observe(this.canvas);
  }

  hit(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    return (this.place?.boxes || []).findIndex((box) => x >= box[0] && x < box[0] + box[2] + 2 && y >= box[1] && y < box[1] + box[3] + 2);
  }

  // Where the tiles stand is decided here, and not when only their numbers change, `paint`: reading the width of an
  // element after a text has changed makes the browser lay out the page.
  // what: {scene, count, names (a caption for each tile, or several, of which the first that fits is shown; widest, tallest) or layers and heads, chosen, fill(i, out) -> top or -1, high}
  draw(what) {
    this.what = what;
    this.width ||= this.canvas.clientWidth || 320;
    const [rows, columns] = what.scene.grid;
    const aspect = rows / columns;
    const key = JSON.stringify([this.width, rows, columns, what.names || [what.layers, what.heads]]);
    if (key !== this.key) this.lay(key, what.names ? flowOfTiles(what.names, what, this.width, aspect) : matrixOfTiles(what.layers, what.heads, this.width, aspect));
    this.choose(what.chosen);
    this.paint();
  }

  lay(key, place) {
    const [rows, columns] = this.what.scene.grid;
    const ratio = window.devicePixelRatio || 1;
    const sharpBox = (box) => box.map((value) => Math.round(value * ratio));
    Object.assign(this, { key, place, boxes: place.boxes.map(sharpBox), across: Math.ceil(Math.sqrt(place.boxes.length)) });
    Object.assign(this.canvas, { width: Math.round(this.width * ratio), height: Math.round(place.height * ratio) });
    this.canvas.style.height = `${place.height}px`;
    this.context = this.canvas.getContext("2d");
    this.context.imageSmoothingEnabled = false;
    Object.assign(this.small, { width: columns * this.across, height: rows * Math.ceil(place.boxes.length / this.across) || 1 });
    this.data = new ImageData(this.small.width, this.small.height);
    this.pixels = new Uint32Array(this.data.data.buffer);
    this.labels.replaceChildren(...place.labels.map(([text, x, y]) => node("span", { style: `left:${x}px;top:${y}px` }, text)));
  }

  choose(i) {
    const box = this.place.boxes[i];
    this.mark.hidden = !box;
    if (box) this.mark.style.cssText = `left:${box[0] - 2}px;top:${box[1] - 2}px;width:${box[2] + 4}px;height:${box[3] + 4}px`;
  }

  // Draws all tiles again; nothing is copied but a pixel for each patch.
  paint() {
    const { scene, count, fill, high } = this.what;
    const [rows, columns] = scene.grid;
    const first = scene.prefix.length;
    const { pixels, across } = this;
    const wide = this.small.width;
    if (!this.out || this.out.length !== first + rows * columns) this.out = new Float32Array(first + rows * columns);
    const { out } = this;
    for (let i = 0; i < count; i += 1) {
      const top = fill(i, out);
      const share = top < 0 ? 0 : 255 / ((high === null ? top : high) || 1);
      let at = Math.floor(i / across) * rows * wide + (i % across) * columns;
      for (let row = 0, p = first; row < rows; row += 1, at += wide - columns) {
        for (let column = 0; column < columns; column += 1, p += 1, at += 1) {
          const place = (out[p] * share + 0.5) | 0;
          pixels[at] = top < 0 ? 0 : SEQUENTIAL_PIXELS[place > 255 ? 255 : place];
        }
      }
    }
    this.small.getContext("2d").putImageData(this.data, 0, 0);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (let i = 0; i < count; i += 1) {
      const box = this.boxes[i];
      this.context.drawImage(this.small, (i % across) * columns, Math.floor(i / across) * rows, columns, rows, box[0], box[1], box[2], box[3]);
    }
  }

  // The pixels as a picture, for an export.
  picture() {
    return { url: this.canvas.toDataURL(), width: this.width, height: this.place.height, labels: this.place.labels };
  }
}
