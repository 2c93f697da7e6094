// One unit of a site: the test images in which it is largest, and where; this image beside them; and all units of the site.
import { brief, choice, colourBar, DIVERGING, DIVERGING_PIXELS, node, picture, range } from "./core.js";
import { palette, svgString } from "./drawing.js";
import { Registers } from "./registers.js";
import { binsOf, unitHistogram, unitSheet } from "./unit_drawing.js";
import { litImage } from "./latent_images.js";
import { tokenMap, tokenName } from "./tokens.js";
import { UnitList } from "./unit_list.js";

const FRAMED = 0.5; // of the largest activation over all images: patches above it are framed
const asNumber = (value) => value.toLocaleString("en");

export class Units {
  static TITLE = "Units";

  constructor(root, page) {
    Object.assign(this, { root, page, token: null });
    this.kind = choice("Units", [], (units) => page.set({ units, number: undefined, find: undefined }));
    this.layers = choice("Layer", [], (layer) => page.set({ layer: Number(layer), number: undefined }));
    this.heads = choice("Head", [], (head) => page.set({ head: Number(head), number: undefined }));
    this.number = node("input", { type: "number", class: "pz-search pz-unit-number", min: 0, step: 1, "aria-label": "Number of the unit", onchange: () => this.go(Number(this.number.value)) });
    const step = (by, text, name) => node("button", { type: "button", class: "pz-step-button", "aria-label": name, onclick: () => this.step(by) }, text);
    this.stepper = node("div", { class: "pz-choice pz-own", role: "group", "aria-label": "Unit" }, node("span", {}, "Unit"), step(-1, "‹", "The unit before it in the list"), this.number, step(1, "›", "The next unit in the list"));
    this.tools = node("div", { class: "pz-tools" }, this.kind.element, this.layers.element, this.heads.element, this.stepper);
    this.title = node("h2", { class: "pz-latent-title" });
    this.words = node("p", { class: "pz-words" });
    this.map = tokenMap("The unit at every token of this image", { over: (token) => this.point(token), out: () => this.point(null) });
    this.bar = colourBar("activation");
    this.here = node("figure", { class: "pz-figure pz-unit-here" }, node("figcaption", {}, "In this image"), this.map.element, this.bar.element);
    this.many = node("figcaption", {});
    this.holder = node("div", { class: "pz-drawing" });
    this.images = node("div", { class: "pz-lit-images pz-unit-images" });
    this.list = new UnitList({ open: (number) => page.set({ number }), change: (values) => page.set(values) });
    this.registers = new Registers(page, (layer, number) => page.set({ units: "mlp.post", layer, number, find: undefined }));
    this.all = node("details", { class: "pz-more", open: true }, node("summary", {}, "All units of this site"), this.list.element);
    root.append(
      node("p", { class: "pz-help" }, "The test images in which one unit is largest, brightest where it is. Images that look alike suggest what it answers to; they do not show what the model uses it for. An image's number is the unit's largest activation over its patches; of a class, its logit."),
      this.tools, this.title, this.words,
      node("div", { class: "pz-columns pz-training" }, this.here, node("figure", { class: "pz-figure" }, this.many, this.holder)),
      this.best = node("h2", { class: "pz-own-latents" }), this.images, this.all, this.registers.element,
    );
    new ResizeObserver(() => this.state && this.holder.clientWidth && this.holder.clientWidth !== this.width && this.chart()).observe(this.holder);
  }

  go(number) {
    if (Number.isInteger(number) && number >= 0 && number < this.facts.count) this.page.set({ number });
    else this.number.value = this.facts.state.number;
  }

  step(by) {
    const next = this.list.beside(this.facts.state.number, by);
    if (next !== undefined) this.page.set({ number: next });
  }

  async update(state, scene, current) {
    const found = await this.page.source.ask("units", state);
    if (!current()) return;
    const { facts, arrays } = found;
    const filled = { units: facts.state.units, number: facts.state.number };
    if (state.units !== filled.units || state.number !== filled.number) this.page.fill(filled);
    Object.assign(this, { state: { ...state, ...filled }, scene, facts, arrays, values: arrays.values.values, token: null });
    this.draw();
    await this.registers.update(this.state, scene, current);
  }

  draw() {
    const began = performance.now();
    const { facts, scene, arrays, values } = this;
    const { units, number, layer, head } = facts.state;
    const [, , layered, headed] = facts.kinds.find(([kind]) => kind === units);
    this.kind.offer(facts.kinds.map(([kind, words]) => [kind, `${kind}: ${words}`]));
    this.layers.offer(range(scene.layers).map((i) => [i, i]));
    this.heads.offer(range(scene.heads).map((i) => [i, i]));
    for (const [control, value] of [[this.kind, units], [this.layers, layer], [this.heads, head]]) control.select.value = value;
    [this.layers.element.hidden, this.heads.element.hidden] = [!layered, !headed];
    this.tools.hidden = this.all.hidden = !this.page.source.live; // without a server there is one unit for each image
    Object.assign(this.number, { value: number, max: facts.count - 1 });
    const named = units === "logits" && scene.labels[number] ? ` (${scene.labels[number]})` : "";
    this.title.textContent = `Unit ${number}${named} of ${facts.site}${headed ? `, head ${head}` : ""}`;
    const below = values.reduce((count, value) => count + (value < facts.own), 0);
    this.said = `In this image it is ${brief(facts.own)}: larger than in ${asNumber(below)} of the ${asNumber(facts.read)} test images that were read (mean ${brief(facts.mean)}, spread ${brief(facts.spread)}).`;
    this.best.textContent = `The ${facts.captions.length} images in which it is largest, of ${asNumber(facts.read)}`;
    this.here.hidden = !facts.grid;
    this.image = picture(arrays.image, 0);
    this.drawMap();
    this.drawImages();
    this.many.textContent = `In all ${asNumber(facts.read)} test images`;
    this.chart();
    this.list.offer(arrays, facts, scene, units === "logits");
    this.list.update({ by: this.state.by, find: this.state.find ?? "", at: number });
    this.point(null);
    document.documentElement.dataset.prismaDrawMs = (performance.now() - began).toFixed(2);
  }

  drawMap() {
    if (!this.facts.grid) return;
    const { values } = this.arrays.tokens;
    const high = Math.max(...Array.from(values, Math.abs), 1e-9);
    this.map.draw({ scene: this.scene, image: this.image, values, map: DIVERGING, pixels: DIVERGING_PIXELS, low: -high, high, format: brief });
    this.bar.draw(DIVERGING, [[0, brief(-high)], [0.5, "0"], [1, brief(high)]]);
  }

  drawImages() {
    const { facts, arrays, values } = this;
    const most = facts.grid ? Math.max(...arrays.maps.values, 1e-9) : 1;
    this.lit = facts.captions.map((caption, i) => {
      const lit = litImage(`Image ${i + 1}: ${caption}, ${brief(values[i])}`);
      const size = facts.grid ? arrays.maps.shape[1] : 0;
      const shares = facts.grid ? Array.from(arrays.maps.values.subarray(i * size, (i + 1) * size), (value) => Math.max(0, value / most)) : null;
      return { element: lit.element, caption, draw: () => lit.draw(picture(arrays.pictures, i), shares, facts.grid, FRAMED) };
    });
    this.images.replaceChildren(...this.lit.map(({ element, caption }, i) => node("figure", {}, element,
      node("figcaption", {}, node("span", {}, brief(values[i])), node("span", { class: "pz-quiet", title: caption }, caption)))));
    this.lit.forEach((one) => one.draw());
  }

  point(token) {
    if (!this.state || !this.facts.grid) return void (this.words.textContent = this.said || "");
    const began = performance.now();
    const { values } = this.arrays.tokens;
    this.words.textContent = token === null ? this.said : `${tokenName(this.scene, token)}: ${brief(values[token])}.`.replace(/^./, (letter) => letter.toUpperCase());
    document.documentElement.dataset.prismaDrawMs = (performance.now() - began).toFixed(2);
  }

  chart() {
    this.width = this.holder.clientWidth || this.width || 560;
    this.holder.replaceChildren(unitHistogram(binsOf(this.values), { width: this.width, height: 250, own: this.facts.own, colours: palette(this.root) }));
  }

  exported() {
    const { facts, arrays, values } = this;
    const numbers = {
      values: { axes: ["rank"], shape: [values.length], values: Float32Array.from(values) },
      order: { axes: ["rank"], shape: [values.length], values: Int32Array.from(arrays.order.values) },
      own: { axes: [], shape: [], values: Float64Array.of(facts.own) },
    };
    if (facts.grid) {
      numbers.maps = { axes: ["rank", "row", "column"], shape: [facts.captions.length, ...facts.grid], values: Float32Array.from(arrays.maps.values) };
      numbers.tokens = { axes: ["token"], shape: [arrays.tokens.values.length], values: Float32Array.from(arrays.tokens.values) };
    }
    const more = this.registers.exported();
    Object.assign(numbers, more?.numbers);
    const sheet = () => unitSheet({ title: this.title.textContent, said: this.said, lit: this.lit, values, bins: binsOf(values), own: facts.own, colours: palette(this.root) });
    return { name: "units", title: this.title.textContent, names: { image: facts.captions, ...more?.names }, numbers, svg: () => svgString(sheet()), code: `${facts.code || ""}${more?.code ?? ""}` };
  }
}
