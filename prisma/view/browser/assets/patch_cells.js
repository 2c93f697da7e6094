// A matrix of cells, such as every head of every layer. What is known exactly fills its cell; an estimate is smaller.
import { css, level, node, range, sharp } from "./core.js";

const CELL_FONT = "ui-monospace, SFMono-Regular, Menlo, monospace";
const CELL_MARGIN = { left: 30, top: 18 };

// handlers: over(index), out(), pick(index). draw({rows, columns, values, map, low, high, exact, marked, chosen, format}):
// NaN is a cell that is not known; `exact` is 1 for cells that are, `chosen` a Set of indices with a cross.
export class Cells {
  constructor(name, handlers) {
    this.handlers = handlers;
    this.at = 0;
    this.canvas = node("canvas", { class: "pz-cells-canvas", role: "img", "aria-label": name });
    const about = { class: "pz-cells", tabindex: 0, role: "application", "aria-label": `${name}. Arrow keys read the cells, Enter chooses one.` };
    this.element = node("div", { ...about, onkeydown: (event) => this.key(event), onfocus: () => this.shown && this.move(this.at) }, this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.hit(event, (index) => this.move(index)));
    this.canvas.addEventListener("click", (event) => this.hit(event, (index) => { this.move(index); handlers.pick(index); }));
    this.canvas.addEventListener("pointerleave", () => handlers.out());
    new ResizeObserver(() => this.shown && this.canvas.clientWidth && this.canvas.clientWidth !== this.width && this.paint()).observe(this.canvas);
  }

  hit(event, found) {
    if (!this.shown) return;
    const bounds = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - bounds.left - CELL_MARGIN.left) / this.wide);
    const row = Math.floor((event.clientY - bounds.top - CELL_MARGIN.top) / this.tall);
    const { rows, columns } = this.shown;
    if (row >= 0 && row < rows && column >= 0 && column < columns) found(row * columns + column);
  }

  move(index) {
    this.at = index;
    this.handlers.over(index);
  }

  key(event) {
    if (!this.shown || event.ctrlKey || event.metaKey || event.altKey) return;
    const { rows, columns } = this.shown;
    const [row, column] = [Math.floor(this.at / columns), this.at % columns];
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      const inside = (value, count) => Math.max(0, Math.min(count - 1, value));
      this.move(inside(row + step[0], rows) * columns + inside(column + step[1], columns));
    } else if (event.key === "Enter" || event.key === " ") this.handlers.pick(this.at);
    else return;
    event.preventDefault();
  }

  draw(what) {
    this.shown = what;
    this.at = Math.min(this.at, what.rows * what.columns - 1);
    this.paint();
  }

  paint() {
    const { rows, columns, values, map, low, high, exact, marked, chosen } = this.shown;
    this.width = this.canvas.clientWidth || this.width || 300;
    this.wide = Math.min(96, (this.width - CELL_MARGIN.left - 1) / columns);
    this.tall = Math.max(16, Math.min(34, this.wide * 0.6, 460 / rows));
    const context = sharp(this.canvas, this.width, CELL_MARGIN.top + rows * this.tall + 2);
    const style = getComputedStyle(this.canvas);
    const line = style.getPropertyValue("--pz-line");
    values.forEach((value, i) => {
      const [x, y] = [CELL_MARGIN.left + (i % columns) * this.wide, CELL_MARGIN.top + Math.floor(i / columns) * this.tall];
      context.strokeStyle = line;
      context.lineWidth = 1;
      context.strokeRect(x + 0.5, y + 0.5, this.wide - 1, this.tall - 1);
      if (Number.isNaN(value)) return;
      const rgb = map[level(value, low, high)];
      const inset = exact && !exact[i] ? Math.min(this.wide, this.tall) * 0.18 : 0.5;
      context.fillStyle = css(rgb);
      context.fillRect(x + inset, y + inset, this.wide - 2 * inset, this.tall - 2 * inset);
      this.number(context, i, x, y, rgb);
      if (chosen?.has(i)) this.cross(context, x, y);
    });
    this.names(context, style.color);
    if (marked === null || marked === undefined) return;
    context.strokeStyle = style.getPropertyValue("--pz-accent");
    context.lineWidth = 2.5;
    context.strokeRect(CELL_MARGIN.left + (marked % columns) * this.wide, CELL_MARGIN.top + Math.floor(marked / columns) * this.tall, this.wide, this.tall);
  }

  number(context, i, x, y, [red, green, blue]) {
    if (this.wide < 40 || !this.shown.format) return;
    context.font = `500 11px ${CELL_FONT}`;
    const text = this.shown.format(this.shown.values[i]);
    if (context.measureText(text).width > this.wide - 8) return;
    [context.textAlign, context.textBaseline] = ["center", "middle"];
    context.fillStyle = red * 0.3 + green * 0.59 + blue * 0.11 > 140 ? "#10131a" : "#ffffff";
    context.fillText(text, x + this.wide / 2, y + this.tall / 2 + 0.5);
  }

  cross(context, x, y) {
    for (const [style, width] of [["#ffffff", 4], ["#10131a", 2]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.beginPath();
      for (const side of [0.25, 0.75]) {
        context.moveTo(x + this.wide * 0.25, y + this.tall * side);
        context.lineTo(x + this.wide * 0.75, y + this.tall * (1 - side));
      }
      context.stroke();
    }
  }

  names(context, colour) {
    const { rows, columns } = this.shown;
    context.fillStyle = colour;
    context.font = `11px ${CELL_FONT}`;
    [context.textAlign, context.textBaseline] = ["center", "middle"];
    range(columns).forEach((column) => context.fillText(column, CELL_MARGIN.left + (column + 0.5) * this.wide, CELL_MARGIN.top / 2));
    range(rows).forEach((row) => context.fillText(row, CELL_MARGIN.left / 2, CELL_MARGIN.top + (row + 0.5) * this.tall));
  }
}

// Every layer's map of the tokens, small; a click chooses the layer.
// draw({scene, layers: [values of a layer, ...], map, pixels, low, high, marked}).
export class LayerMaps {
  constructor(choose, name = "The map of every layer") {
    this.choose = choose;
    this.canvas = node("canvas", { class: "pz-cells-canvas", role: "img", "aria-label": name });
    const about = { class: "pz-cells", tabindex: 0, role: "application", "aria-label": `${name}. Left and right choose the layer.` };
    this.element = node("div", { ...about, onkeydown: (event) => this.key(event) }, this.canvas);
    this.small = document.createElement("canvas");
    this.canvas.addEventListener("click", (event) => {
      if (!this.shown) return;
      const bounds = this.canvas.getBoundingClientRect();
      const column = Math.floor((event.clientX - bounds.left) / this.side);
      const layer = Math.floor((event.clientY - bounds.top) / this.step) * this.across + column;
      if (column < this.across && layer < this.shown.layers.length) choose(layer);
    });
    new ResizeObserver(() => this.shown && this.canvas.clientWidth && this.canvas.clientWidth !== this.width && this.paint()).observe(this.canvas);
  }

  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.across, ArrowDown: this.across }[event.key];
    const layer = this.shown && move ? this.shown.marked + move : -1;
    if (layer < 0 || layer >= this.shown.layers.length) return;
    event.preventDefault();
    this.draw({ ...this.shown, marked: layer });
    this.choose(layer);
  }

  draw(what) {
    this.shown = what;
    this.paint();
  }

  paint() {
    const { scene, layers, map, pixels, low, high, marked } = this.shown;
    const [rows, columns] = scene.grid;
    this.width = this.canvas.clientWidth || this.width || 300;
    this.side = Math.min(96, this.width / Math.min(4, layers.length));
    this.across = Math.max(1, Math.floor(this.width / this.side));
    const inner = this.side - 8;
    const tall = (inner * rows) / columns;
    const prefix = scene.prefix.length;
    const strip = prefix ? 7 : 0; // prefix tokens, above the patches
    this.step = strip + tall + 22;
    const context = sharp(this.canvas, this.width, Math.ceil(layers.length / this.across) * this.step);
    const style = getComputedStyle(this.canvas);
    Object.assign(this.small, { width: columns, height: rows });
    context.imageSmoothingEnabled = false;
    context.font = `11px ${CELL_FONT}`;
    [context.textAlign, context.textBaseline] = ["left", "middle"];
    layers.forEach((values, layer) => {
      const [x, y] = [(layer % this.across) * this.side + 3, Math.floor(layer / this.across) * this.step + 16];
      const data = new ImageData(columns, rows);
      const target = new Uint32Array(data.data.buffer);
      for (let p = 0; p < rows * columns; p += 1) target[p] = pixels[level(values[prefix + p], low, high)] || 0;
      this.small.getContext("2d").putImageData(data, 0, 0);
      context.drawImage(this.small, x, y + strip, inner, tall);
      for (let i = 0; i < prefix; i += 1) {
        if (Number.isNaN(values[i])) continue;
        context.fillStyle = css(map[level(values[i], low, high)]);
        context.fillRect(x + (i * inner) / prefix, y, inner / prefix - (prefix > 1 ? 1 : 0), strip - 2);
      }
      context.fillStyle = style.color;
      context.fillText(`layer ${layer}`, x, y - 8);
      if (layer !== marked) return;
      context.strokeStyle = style.getPropertyValue("--pz-accent");
      context.lineWidth = 2.5;
      context.strokeRect(x - 1, y - 1, inner + 2, strip + tall + 2);
    });
  }
}
