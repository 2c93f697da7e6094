// Any array with named axes: a map of its last two, with a choice for each of the others.
import { brief, choice, colourBar, DIVERGING, level, node, range, SEQUENTIAL, sharp } from "./core.js";
import { palette, svgColourBar, svgDrawing, svgHeat, svgString, svgText, tableOf } from "./drawing.js";

const MOST_CELLS = 40_000; // of an SVG and of a table
const EDGE = { left: 58, top: 24 };

export class Maps {
  static TITLE = "Maps";

  constructor(root, page) {
    Object.assign(this, { root, page, cursor: [0, 0] });
    this.tools = node("div", { class: "pz-tools" });
    this.words = node("p", { class: "pz-words" });
    this.canvas = node("canvas", { class: "pz-map", "aria-hidden": "true" });
    this.bar = colourBar("value");
    this.stage = node("div", { class: "pz-stage", tabindex: 0, role: "application", "aria-roledescription": "map of numbers", "aria-label": "Numbers as colours. Arrow keys read them.", onkeydown: (event) => this.key(event) && event.preventDefault() }, this.canvas);
    this.more = node("details", { class: "pz-more", ontoggle: () => this.values && this.tabulate() }, node("summary", {}, "Show as table"));
    root.append(this.tools, this.words, this.stage, this.bar.element, node("p", { class: "pz-keys" }, "hover, or arrow keys, for the numbers"), this.more);
    this.canvas.addEventListener("pointermove", (event) => {
      if (!this.values) return;
      const bounds = this.canvas.getBoundingClientRect();
      const cell = [Math.floor((event.clientY - bounds.top - EDGE.top) / this.tall), Math.floor((event.clientX - bounds.left - EDGE.left) / this.wide)];
      if (cell[0] >= 0 && cell[1] >= 0 && cell[0] < this.rows && cell[1] < this.columns) this.point(cell);
    });
    new ResizeObserver(() => this.values && this.canvas.clientWidth && this.canvas.clientWidth !== this.width && this.paint()).observe(this.canvas);
  }

  async update(state, scene, current) {
    const { facts, arrays } = await this.page.source.ask("maps", state);
    if (!current()) return;
    Object.assign(this, { facts, arrays });
    const names = Object.keys(arrays);
    if (!names.length) {
      this.words.textContent = "There is nothing to draw.";
      return;
    }
    this.name = names.includes(state.array) ? state.array : names[0];
    const { shape, values } = arrays[this.name];
    const axes = facts.axes[this.name];
    const leading = Math.max(0, shape.length - 2);
    const asked = String(state.at || "").split(",").map(Number);
    this.at = range(leading).map((i) => (asked[i] > 0 && asked[i] < shape[i] ? asked[i] : 0));
    [this.rows, this.columns] = shape.length > 1 ? shape.slice(-2) : [1, shape[0] ?? 1];
    this.axes = shape.length > 1 ? axes.slice(-2) : ["", axes[0] ?? "value"];
    const start = this.at.reduce((sum, index, i) => sum * shape[i] + index, 0) * this.rows * this.columns;
    this.values = values.subarray(start, start + this.rows * this.columns);
    this.choose(names, axes, shape, leading);
    this.scale(values);
    this.cursor = [Math.min(this.cursor[0], this.rows - 1), Math.min(this.cursor[1], this.columns - 1)];
    this.paint();
    this.tabulate();
  }

  choose(names, axes, shape, leading) {
    const array = choice("Array", names.map((name) => [name, name]), (value) => this.page.set({ array: value, at: undefined }));
    array.select.value = this.name;
    const others = range(leading).map((i) => {
      const one = choice(axes[i], range(shape[i]).map((k) => [k, this.nameOf(axes[i], k)]), (value) => this.page.set({ at: this.at.map((old, j) => (j === i ? value : old)).join(",") }));
      one.select.value = this.at[i];
      return one.element;
    });
    this.tools.replaceChildren(...(names.length > 1 ? [array.element] : []), ...others);
  }

  nameOf(axis, i) {
    return this.facts.names[axis]?.[i] ?? String(i);
  }

  // One scale for the whole array, so that maps can be compared; two colours where there are negative numbers.
  scale(values) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (!(high >= low)) [low, high] = [0, 1];
    if (low < 0) [low, high] = [-Math.max(-low, high), Math.max(-low, high)];
    else if (low < high / 2) low = 0;
    Object.assign(this, { low, high, colours: low < 0 ? DIVERGING : SEQUENTIAL });
    this.bar.draw(this.colours, this.ticks());
  }

  ticks() {
    return [[0, brief(this.low)], [0.5, brief((this.low + this.high) / 2)], [1, brief(this.high)]];
  }

  paint() {
    this.width = this.canvas.clientWidth || this.width || 480;
    const { rows, columns, values } = this;
    this.wide = Math.min(64, (this.width - EDGE.left) / columns);
    this.tall = Math.max(2, Math.min(26, columns === rows ? this.wide : 26, 560 / rows));
    const context = sharp(this.canvas, this.width, EDGE.top + this.tall * rows + 2);
    const small = node("canvas", { width: columns, height: rows });
    const data = new ImageData(columns, rows);
    for (let i = 0; i < values.length; i += 1) {
      if (!Number.isNaN(values[i])) data.data.set([...this.colours[level(values[i], this.low, this.high)], 255], 4 * i);
    }
    small.getContext("2d").putImageData(data, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, EDGE.left, EDGE.top, this.wide * columns, this.tall * rows);
    const colours = palette(this.root);
    [context.fillStyle, context.font, context.textBaseline] = [colours.quiet, "11px system-ui, sans-serif", "middle"];
    context.textAlign = "right";
    const everyRow = Math.ceil(13 / this.tall);
    range(rows).forEach((i) => { if (i % everyRow === 0 && this.axes[0]) context.fillText(this.nameOf(this.axes[0], i).slice(0, 8), EDGE.left - 5, EDGE.top + (i + 0.5) * this.tall); });
    context.textAlign = "center";
    const everyColumn = Math.ceil(30 / this.wide);
    range(columns).forEach((i) => { if (i % everyColumn === 0) context.fillText(this.nameOf(this.axes[1], i).slice(0, 6), EDGE.left + (i + 0.5) * this.wide, EDGE.top - 9); });
    this.drawing = context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    this.point(this.cursor);
  }

  key(event) {
    const [row, column] = this.cursor;
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move || !this.values) return false;
    this.point([Math.max(0, Math.min(this.rows - 1, row + move[0])), Math.max(0, Math.min(this.columns - 1, column + move[1]))]);
    return true;
  }

  point(cell) {
    this.cursor = cell;
    const context = this.canvas.getContext("2d");
    context.putImageData(this.drawing, 0, 0);
    const [x, y] = [EDGE.left + cell[1] * this.wide, EDGE.top + cell[0] * this.tall];
    for (const [style, line] of [["rgba(0,0,0,.85)", 4], ["#ffffff", 2]]) {
      [context.strokeStyle, context.lineWidth] = [style, line];
      context.strokeRect(x, y, Math.max(this.wide, 3), Math.max(this.tall, 3));
    }
    const value = this.values[cell[0] * this.columns + cell[1]];
    const place = this.axes.map((axis, i) => (axis ? `${axis} ${this.nameOf(axis, cell[i])}` : "")).filter(Boolean).join(", ");
    this.words.textContent = `${this.name}, ${place}: ${Number.isNaN(value) ? "none" : brief(value)}.`;
  }

  tabulate() {
    if (!this.more.open || !this.values) return;
    const [rows, columns] = [Math.min(this.rows, 64), Math.min(this.columns, 64)];
    const body = range(rows).map((i) => [this.nameOf(this.axes[0], i), ...range(columns).map((j) => brief(this.values[i * this.columns + j]))]);
    const table = tableOf([this.axes.filter(Boolean).join(", "), ...range(columns).map((j) => this.nameOf(this.axes[1], j))], body);
    const said = rows < this.rows || columns < this.columns ? [node("p", {}, `The first ${rows} of ${this.rows} rows and ${columns} of ${this.columns} columns.`)] : [];
    this.more.replaceChildren(this.more.firstChild, ...said, node("div", { class: "pz-scroll", tabindex: 0, role: "group", "aria-label": "Numbers of the map" }, table));
  }

  exported() {
    const of = ([name, { shape, values }]) => [name, { axes: this.facts.axes[name], shape, values }];
    return {
      name: this.name, title: `${this.facts.title}: ${this.name}`, names: this.facts.names, code: "",
      numbers: Object.fromEntries(Object.entries(this.arrays).map(of)), svg: () => this.svg(),
    };
  }

  svg() {
    if (this.values.length > MOST_CELLS) throw new Error(`This map has ${this.values.length} cells, too many for an SVG: take the numbers.`);
    const colours = palette(this.root);
    const [width, tall] = [Math.min(900, 60 * this.columns), Math.max(8, Math.min(24, 600 / this.rows))];
    const height = tall * this.rows;
    const place = this.at.map((i, k) => `${this.facts.axes[this.name][k]} ${i}`).join(", ");
    const everyRow = Math.ceil(13 / tall);
    const everyColumn = Math.ceil(30 / (width / this.columns));
    return svgString(svgDrawing(Math.max(width + 90, 420), height + 100,
      svgText(8, 20, `${this.facts.title}: ${this.name}${place ? `, ${place}` : ""}`, { fill: colours.ink, size: 14, weight: 700 }),
      svgHeat({ x: 70, y: 46, width, height, rows: this.rows, columns: this.columns, values: this.values, map: this.colours, low: this.low, high: this.high }),
      range(this.rows).map((i) => (i % everyRow || !this.axes[0] ? [] : svgText(64, 46 + (i + 0.5) * tall + 4, this.nameOf(this.axes[0], i).slice(0, 8), { fill: colours.quiet, anchor: "end", size: 11 }))),
      range(this.columns).map((i) => (i % everyColumn ? [] : svgText(70 + ((i + 0.5) * width) / this.columns, 40, this.nameOf(this.axes[1], i).slice(0, 6), { fill: colours.quiet, anchor: "middle", size: 11 }))),
      svgColourBar({ x: 70, y: height + 58, width: 220, map: this.colours, ticks: this.ticks(), colours, title: this.name })));
  }
}
