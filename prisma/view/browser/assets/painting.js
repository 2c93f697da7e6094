// The corrupt image of a pair: another example, a file, or the clean image changed in the patches that are painted.
import { choice, node, picture, range } from "./core.js";

const PAIR_KINDS = [["image", "another image"], ["blur", "blurred patches"], ["noise", "noisy patches"], ["mean", "masked patches (mean)"]];
const PAINT_SIDE = 224; // of the canvas, CSS pixels

// "blur:0,3" -> {kind: "blur", patches: Set {0, 3}}; an image by number or name has the kind "image".
export function corruption(text) {
  const [kind, listed] = String(text ?? "").split(":");
  if (!["blur", "noise", "mean"].includes(kind)) return { kind: "image", patches: new Set() };
  return { kind, patches: new Set((listed || "").split(",").filter(Boolean).map(Number)) };
}

export class Painting {
  constructor(page) {
    this.page = page;
    this.kind = choice("Corrupt image", PAIR_KINDS, (kind) => this.choose(kind));
    this.strip = node("div", { class: "pz-examples", role: "group", "aria-label": "Corrupt image: examples. Arrow keys choose.", onkeydown: (event) => this.stripKey(event) });
    const file = node("input", { type: "file", accept: "image/*", "aria-label": "A file as the corrupt image", onchange: () => this.upload(file.files[0]) });
    this.file = node("label", { class: "pz-choice" }, node("span", {}, "or a file"), file);
    this.canvas = node("canvas", { class: "pz-paint", width: 1, height: 1 });
    this.words = node("p", { class: "pz-quiet", role: "status" });
    const about = { class: "pz-cells", tabindex: 0, role: "application", "aria-label": "Paint patches. Arrow keys move, space paints or erases, Escape erases all." };
    const all = node("button", { type: "button", onclick: () => this.set(new Set()) }, "Erase all");
    this.pad = node("div", { class: "pz-painting" }, node("div", { ...about, onkeydown: (event) => this.key(event) }, this.canvas), this.words, all);
    this.trouble = node("span", { role: "alert" });
    this.element = node("div", { class: "pz-pairing" }, this.kind.element, this.strip, this.file, this.trouble, this.pad);
    this.cursor = 0;
    this.stroke = null;
    this.listen();
  }

  choose(kind) {
    const other = kind === "image" ? undefined : `${kind}:${[...this.asked].join(",")}`;
    this.page.set({ corrupt: other, target: undefined, against: undefined });
  }

  // The patches of the present state, which may be newer than what is drawn.
  get asked() {
    return corruption(this.page.state.corrupt).patches;
  }

  set(painted) {
    this.painted = painted;
    this.draw();
    const listed = [...painted].sort((a, b) => a - b).join(",");
    this.page.set({ corrupt: `${corruption(this.page.state.corrupt).kind}:${listed}` });
  }

  async upload(file) {
    if (!file) return;
    this.trouble.textContent = "";
    try {
      this.page.set({ corrupt: await this.page.source.upload(file), target: undefined, against: undefined });
    } catch (error) {
      this.trouble.textContent = error.message;
    }
  }

  update(state, scene, thumbnails, clean) {
    const { kind, patches } = corruption(state.corrupt);
    Object.assign(this, { scene, painted: this.stroke ? this.painted : patches, image: clean });
    this.kind.select.value = kind;
    this.strip.hidden = this.file.hidden = kind !== "image";
    this.pad.hidden = kind === "image";
    if (thumbnails !== this.thumbnails) this.fillStrip(thumbnails, scene);
    const chosen = [...this.strip.children].find((button) => button.dataset.img === state.corrupt && !button.disabled);
    [...this.strip.children].forEach((button) => {
      button.disabled = button.dataset.img === state.img;
      button.setAttribute("aria-pressed", String(button.dataset.img === state.corrupt));
    });
    const stop = chosen || [...this.strip.children].find((button) => !button.disabled);
    [...this.strip.children].forEach((button) => { button.tabIndex = button === stop ? 0 : -1; });
    if (kind !== "image") this.draw();
  }

  fillStrip(thumbnails, scene) {
    this.thumbnails = thumbnails;
    const pick = (img) => this.page.set({ corrupt: img, target: undefined, against: undefined });
    this.strip.replaceChildren(...scene.examples.map(({ caption, img }, i) => {
      const thumb = picture(thumbnails, i);
      thumb.setAttribute("aria-hidden", "true");
      return node("button", { type: "button", class: "pz-example", title: caption, "aria-label": caption, "data-img": img, onclick: () => pick(img) }, thumb);
    }));
  }

  // One tab stop for all examples: arrow keys move.
  stripKey(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const all = [...this.strip.children].filter((button) => !button.disabled);
    const next = all[Math.max(0, Math.min(all.length - 1, all.indexOf(event.target.closest("button")) + move))];
    next.focus();
    next.click();
  }

  listen() {
    const at = (event) => {
      const bounds = this.canvas.getBoundingClientRect();
      const [rows, columns] = this.scene.grid;
      const row = Math.floor(((event.clientY - bounds.top) / bounds.height) * rows);
      const column = Math.floor(((event.clientX - bounds.left) / bounds.width) * columns);
      return row >= 0 && row < rows && column >= 0 && column < columns ? row * columns + column : -1;
    };
    const brush = (event) => {
      const patch = at(event);
      if (patch < 0 || !this.stroke) return;
      this.cursor = patch;
      this.painted[this.stroke](patch);
      this.draw();
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      const patch = at(event);
      if (event.button !== 0 || patch < 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.painted = this.asked;
      this.stroke = this.painted.has(patch) ? "delete" : "add";
      brush(event);
    });
    this.canvas.addEventListener("pointermove", brush);
    const finish = () => {
      if (!this.stroke) return;
      this.stroke = null;
      this.set(this.painted);
    };
    this.canvas.addEventListener("pointerup", finish);
    this.canvas.addEventListener("pointercancel", finish);
  }

  key(event) {
    const [rows, columns] = this.scene.grid;
    const [row, column] = [Math.floor(this.cursor / columns), this.cursor % columns];
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      const inside = (value, count) => Math.max(0, Math.min(count - 1, value));
      this.cursor = inside(row + step[0], rows) * columns + inside(column + step[1], columns);
      this.draw();
    } else if (event.key === " " || event.key === "Enter") {
      const painted = this.asked;
      if (!painted.delete(this.cursor)) painted.add(this.cursor);
      this.set(painted);
    } else if (event.key === "Escape") this.set(new Set());
    else return;
    event.preventDefault();
  }

  draw() {
    const [rows, columns] = this.scene.grid;
    const height = Math.round((PAINT_SIDE * this.image.height) / this.image.width);
    const ratio = window.devicePixelRatio || 1;
    Object.assign(this.canvas, { width: PAINT_SIDE * ratio, height: height * ratio });
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = this.image.width >= PAINT_SIDE;
    context.drawImage(this.image, 0, 0, PAINT_SIDE, height);
    const box = (patch) => [((patch % columns) * PAINT_SIDE) / columns, (Math.floor(patch / columns) * height) / rows, PAINT_SIDE / columns, height / rows];
    context.strokeStyle = "rgba(128,128,128,.5)";
    range(rows * columns).forEach((patch) => context.strokeRect(...box(patch)));
    context.fillStyle = "rgba(230,159,0,.62)";
    this.painted.forEach((patch) => patch < rows * columns && context.fillRect(...box(patch)));
    for (const [style, line] of [["#10131a", 4], ["#ffffff", 2]]) {
      context.strokeStyle = style;
      context.lineWidth = line;
      const [x, y, width, tall] = box(Math.min(this.cursor, rows * columns - 1));
      context.strokeRect(x + 2, y + 2, width - 4, tall - 4);
    }
    const name = (patch) => `row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`;
    const painted = this.painted.size ? `${this.painted.size} of ${rows * columns} patches are changed` : "Nothing is painted, so the whole image is changed";
    this.words.textContent = `${painted}. At ${name(this.cursor)}: ${this.painted.has(this.cursor) ? "painted" : "not painted"}.`;
  }
}
