// What the embedding, every head, every MLP and every bias write to one logit: bars that sum to it.
import { brief, choice, node, signed } from "./core.js";
import { barsDrawing, grouped, ordered } from "./bars_drawing.js";
import { Naming } from "./naming.js";
import { Numbers } from "./pack.js";
import { palette, svgString, tableOf } from "./drawing.js";

const LARGEST = 8; // parts in the list

export class Decompose {
  static TITLE = "Decompose";

  constructor(root, page) {
    Object.assign(this, { root, page, cursor: 0 });
    const number = (value) => (value === "" ? undefined : Number(value));
    this.target = choice("Logit of", [], (value) => page.set({ target: Number(value) }));
    this.against = choice("minus the logit of", [], (value) => page.set({ against: number(value) }));
    this.bars = choice("Bars", [["each", "every head, MLP and bias"], ["layers", "one for each layer"]], (bars) => page.set({ bars }));
    this.order = choice("Order", [["model", "as in the model"], ["size", "largest first"]], (order) => page.set({ order }));
    this.start = choice("Bars start", [["zero", "at zero"], ["sum", "where the one before ends"]], (start) => page.set({ start }));
    this.sum = node("p", { class: "pz-answer-line" });
    this.words = node("p", { class: "pz-words" });
    this.holder = node("div", { class: "pz-drawing" });
    this.stage = node("div", {
      class: "pz-stage pz-bars", tabindex: 0, role: "application", "aria-roledescription": "bar chart", "aria-label": "What each part writes to the logit. Left and right move over the bars, Home and End to the ends.",
      onpointermove: (event) => this.over(event), onpointerleave: () => this.state && this.point(this.cursor), onkeydown: (event) => this.key(event) && event.preventDefault(),
    }, this.holder);
    this.largest = node("ol", { class: "pz-top pz-largest", "aria-label": "The largest parts" });
    this.more = node("details", { class: "pz-more", ontoggle: () => this.state && this.tabulate() }, node("summary", {}, "Show as table"));
    this.naming = page.embedded ? null : new Naming(page); // the output of a cell has one image
    root.append(
      node("p", { class: "pz-help" }, "What each part of the model writes to a class's logit, directly, with the final norm held as it is: the bars sum to the logit. What a head does through later layers is not in its bar: see Patching."),
      node("div", { class: "pz-tools" }, this.target.element, this.against.element, this.bars.element, this.order.element, this.start.element),
      this.sum, this.words, this.stage,
      node("h2", { class: "pz-quiet" }, "The largest parts"), this.largest,
      node("p", { class: "pz-keys" }, "hover, or left and right, for the numbers · above zero raises the logit, below lowers it"), this.more, ...(this.naming ? [this.naming.element] : []),
    );
    new ResizeObserver(() => this.state && this.stage.clientWidth && this.stage.clientWidth !== this.width && this.paint()).observe(this.stage);
  }

  async update(state, scene, current) {
    const found = await this.page.source.ask("decompose", state);
    if (!current()) return;
    const { facts, arrays } = found;
    if ((state.target ?? null) !== (facts.state.target ?? null)) this.page.fill({ target: facts.state.target });
    Object.assign(this, { state: this.page.state, facts, scene, labels: facts.labels || scene.labels, values: new Numbers(arrays.parts).row() });
    this.draw();
    await this.naming?.update(this.state, scene, current);
  }

  get metric() {
    if (this.facts.metric) return this.facts.metric; // of a result in a notebook
    const { target, against } = this.facts.state;
    const logit = `logit of ${this.labels[target]}`;
    return against === undefined || against === null ? logit : `${logit} minus that of ${this.labels[against]}`;
  }

  draw() {
    const { facts, labels, values, state } = this;
    if (this.offered !== labels) {
      this.offered = labels;
      this.target.offer(labels.map((text, i) => [i, text]));
      this.against.offer([["", "nothing"], ...labels.map((text, i) => [i, text])]);
    }
    this.target.element.hidden = this.against.element.hidden = !this.page.source.live;
    const chosen = { target: facts.state.target, against: facts.state.against ?? "", bars: state.bars, order: state.order, start: state.start };
    for (const [name, value] of Object.entries(chosen)) this[name].select.value = value;
    this.sum.textContent = `The ${values.length} parts sum to ${brief(facts.sum)}; the model's ${this.metric} is ${brief(facts.value)}.`;
    const parts = facts.names.map((name, i) => ({ name, group: facts.groups[i], value: values[i] }));
    this.shown = ordered(state.bars === "layers" ? grouped(parts) : parts, state.order);
    const large = this.shown.reduce((best, { value }, i) => (Math.abs(value) > Math.abs(this.shown[best].value) ? i : best), 0);
    this.cursor = large; // until another is pointed at
    const most = Math.max(...parts.map(({ value }) => Math.abs(value)), 1e-9);
    this.largest.replaceChildren(...ordered(parts, "size").slice(0, LARGEST).map(({ name, value }) => node("li", { class: value < 0 ? "pz-negative" : null },
      node("span", { class: "pz-fill", style: `transform:scaleX(${Math.abs(value) / most})` }), node("span", { class: "pz-name" }, name), node("span", { class: "pz-value" }, signed(value)))));
    this.paint();
    this.tabulate();
  }

  paint() {
    this.width = this.stage.clientWidth || this.width || 720;
    this.chart = barsDrawing(this.shown, { width: this.width, start: this.state.start, total: this.facts.value, colours: palette(this.root), ordered: this.state.order === "model" });
    this.chart.svg.setAttribute("aria-hidden", "true");
    this.holder.replaceChildren(this.chart.svg);
    this.point(this.cursor);
  }

  over(event) {
    if (!this.state) return;
    const { left, wide } = this.chart;
    const i = Math.floor((event.clientX - this.holder.getBoundingClientRect().left - left) / wide);
    if (i >= 0 && i < this.shown.length) this.point(i);
  }

  key(event) {
    const moves = { ArrowLeft: this.cursor - 1, ArrowRight: this.cursor + 1, Home: 0, End: this.shown.length - 1 };
    if (!this.state || !(event.key in moves)) return false;
    this.point(Math.max(0, Math.min(this.shown.length - 1, moves[event.key])));
    return true;
  }

  point(i) {
    const began = performance.now();
    this.cursor = i;
    const { name, value } = this.shown[i];
    const { left, wide, band } = this.chart;
    band.setAttribute("x", (left + i * wide).toFixed(2));
    band.setAttribute("width", Math.max(wide, 1).toFixed(2));
    const before = this.shown.slice(0, i + 1).reduce((sum, part) => sum + part.value, 0);
    const so = this.state.start === "sum" ? ` Up to here: ${brief(before)}.` : "";
    this.words.textContent = `${name[0].toUpperCase()}${name.slice(1)} writes ${signed(value)} to the ${this.metric}.${so}`;
    document.documentElement.dataset.prismaDrawMs = (performance.now() - began).toFixed(2);
  }

  tabulate() {
    if (!this.more.open) return;
    const rows = this.shown.map(({ name, value }) => [name, signed(value)]);
    this.more.replaceChildren(this.more.firstChild, tableOf(["part", "writes"], [...rows, ["sum", signed(this.facts.sum)], [`the model's ${this.metric}`, signed(this.facts.value)]]));
  }

  exported() {
    const { facts, values } = this;
    const title = `What each part writes to the ${this.metric}`;
    const more = this.naming?.exported();
    const chart = () => barsDrawing(this.shown, { width: 1000, start: this.state.start, total: facts.value, colours: palette(this.root), ordered: this.state.order === "model", title });
    return {
      name: "decompose", title, names: { part: facts.names },
      numbers: {
        parts: { axes: ["part"], shape: [values.length], values: Float32Array.from(values) },
        logit: { axes: [], shape: [], values: Float64Array.of(facts.value) },
        ...more?.numbers,
      },
      svg: () => svgString(chart().svg), code: `${facts.code || ""}${more?.code ?? ""}`,
    };
  }
}
