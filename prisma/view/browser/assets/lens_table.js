// The table of a logit lens: a row for each stage, a column for each token; a cell has the likeliest class and its
// probability as colour. It is painted once for an image; a box moves over it.
import { level, node, range, SEQUENTIAL, SEQUENTIAL_PIXELS, sharp } from "./core.js";
import { label } from "./tokens.js";

const NARROWEST = 5; // pixels of a cell; below, the table scrolls sideways
const TALL = 22;
const HEADING = 18;
const WORDY = 44; // pixels of a cell that names its class

export class LensTable {
  // handlers: over(stage, token), out(), pick(stage, token), key(event)
  constructor(handlers) {
    this.canvas = node("canvas", { class: "pz-lens-cells", "aria-hidden": "true" });
    this.box = node("div", { class: "pz-lens-box", "aria-hidden": "true" });
    this.names = node("div", { class: "pz-lens-names", "aria-hidden": "true" });
    this.inner = node("div", { class: "pz-lens-inner" }, this.canvas, this.box);
    this.scroll = node("div", { class: "pz-lens-scroll" }, this.inner);
    this.element = node("div", {
      class: "pz-lens-table", tabindex: 0, role: "application", "aria-roledescription": "table of stages and tokens",
      "aria-label": "Likeliest class of every token at every stage. Left and right move the token, up and down the stage, 0 is the first token, Enter pins, Escape unpins.",
      onkeydown: handlers.key,
    }, this.names, this.scroll);
    this.small = document.createElement("canvas");
    const at = (event) => {
      if (!this.shown) return null;
      const bounds = this.canvas.getBoundingClientRect();
      const token = Math.floor((event.clientX - bounds.left) / this.wide);
      const stage = Math.floor((event.clientY - bounds.top - HEADING) / TALL);
      const { stages, tokens } = this.shown;
      return token >= 0 && stage >= 0 && token < tokens && stage < stages.length ? [stage, token] : null;
    };
    this.canvas.addEventListener("pointermove", (event) => { const cell = at(event); if (cell) handlers.over(...cell); });
    this.canvas.addEventListener("pointerleave", handlers.out);
    this.canvas.addEventListener("click", (event) => { const cell = at(event); if (cell) handlers.pick(...cell); });
    new ResizeObserver(() => this.shown && this.scroll.clientWidth && this.scroll.clientWidth !== this.width && this.paint()).observe(this.scroll);
  }

  // shown: {stages: [name], short: [name], tokens: count, columns: patches in a row of the image, prefix: count,
  // top(stage, token) -> [class, probability], high, labels, target}
  draw(shown) {
    this.shown = shown;
    this.paint();
  }

  paint() {
    const { stages, short, tokens, top, high } = this.shown;
    this.width = this.scroll.clientWidth || this.width || 600;
    this.wide = Math.max(NARROWEST, Math.min(120, this.width / tokens));
    const [width, height] = [this.wide * tokens, HEADING + TALL * stages.length];
    this.canvas.style.width = `${width}px`;
    Object.assign(this.small, { width: tokens, height: stages.length });
    const data = new ImageData(tokens, stages.length);
    const target = new Uint32Array(data.data.buffer);
    range(stages.length).forEach((stage) => {
      for (let token = 0; token < tokens; token += 1) target[stage * tokens + token] = SEQUENTIAL_PIXELS[level(top(stage, token)[1], 0, high)];
    });
    this.small.getContext("2d").putImageData(data, 0, 0);
    const context = sharp(this.canvas, width, height);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.small, 0, HEADING, width, TALL * stages.length);
    this.mark(context);
    this.headings(context);
    this.names.replaceChildren(...short.map((name) => node("span", {}, name)));
    this.names.style.paddingTop = `${HEADING}px`;
    if (this.at) this.show(...this.at);
  }

  // Names of classes where they fit, and a bar under each cell whose likeliest class is the chosen one.
  mark(context) {
    const { stages, tokens, top, high, labels, target } = this.shown;
    context.font = "11px ui-monospace, SFMono-Regular, Menlo, monospace";
    range(stages.length).forEach((stage) => {
      for (let token = 0; token < tokens; token += 1) {
        const [best, probability] = top(stage, token);
        const [x, y] = [token * this.wide, HEADING + stage * TALL];
        const rgb = SEQUENTIAL[level(probability, 0, high)];
        const bright = rgb[0] * 0.3 + rgb[1] * 0.59 + rgb[2] * 0.11 > 150;
        if (best === target) {
          context.fillStyle = bright ? "#10131a" : "#ffffff";
          context.fillRect(x + 1, y + TALL - 4, Math.max(1, this.wide - 2), 2);
        }
        if (this.wide < WORDY) continue;
        label(context, shortened(context, labels[best], this.wide - 8), [x, y - 1, this.wide, TALL], bright);
      }
    });
  }

  // Where the rows of the image begin.
  headings(context) {
    const { tokens, prefix, columns } = this.shown;
    const style = getComputedStyle(this.canvas);
    [context.fillStyle, context.strokeStyle] = [style.color, style.getPropertyValue("--pz-paper") || "#ffffff"];
    [context.textAlign, context.textBaseline, context.font, context.lineWidth] = ["left", "middle", "11px system-ui, sans-serif", 1];
    const every = Math.ceil(46 / (columns * this.wide));
    for (let token = prefix, row = 1; token < tokens; token += columns, row += 1) {
      const x = token * this.wide;
      context.beginPath();
      context.moveTo(x, HEADING - 3);
      context.lineTo(x, HEADING + TALL * this.shown.stages.length);
      context.stroke();
      if ((row - 1) % every === 0) context.fillText(`row ${row}`, x + 3, HEADING / 2);
    }
  }

  // Moves the box to a cell.
  show(stage, token) {
    this.at = [stage, token];
    Object.assign(this.box.style, { width: `${this.wide + 4}px`, height: `${TALL + 4}px`, transform: `translate(${token * this.wide - 2}px, ${HEADING + stage * TALL - 2}px)` });
    [...this.names.children].forEach((name, i) => name.classList.toggle("pz-here", i === stage));
  }

  // Scrolls sideways until the box is seen.
  reveal() {
    const [left, right] = [this.at[1] * this.wide, (this.at[1] + 1) * this.wide];
    if (left < this.scroll.scrollLeft) this.scroll.scrollLeft = left;
    else if (right > this.scroll.scrollLeft + this.width) this.scroll.scrollLeft = right - this.width;
  }
}

export function shortened(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  const letters = Math.max(1, Math.floor((width / context.measureText("m").width) - 1));
  return `${Array.from(text).slice(0, letters).join("")}…`;
}
