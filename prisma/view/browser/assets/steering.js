// Steering: a direction that stands for a class is added to an activation; the answer by dose, of many images and of this one.
import { brief, choice, node, range } from "./core.js";
import { DOSE_COLOURS, doseDrawing } from "./dose_drawing.js";
import { Numbers } from "./pack.js";
import { palette, svgString, tableOf } from "./drawing.js";
import { patchClasses, percentOf } from "./patch_detail.js";

const [STEER_CLASSES, DOSE_TALL] = [5, 320]; // likeliest classes of either run that are listed; height of the chart
const STEER_TOKENS = { class: "the class token", patches: "the patches", all: "all tokens" };
const OF_STEERING = ["target", "steer", "where", "direction", "reach"];

export class Steering {
  static TITLE = "Steering";

  constructor(root, page) {
    Object.assign(this, { root, page, curve: null });
    const number = (value) => (value === "" ? undefined : Number(value));
    this.target = choice("Towards", [], (value) => page.set({ target: Number(value) }));
    this.against = choice("away from", [], (value) => page.set({ against: number(value) }));
    this.direction = choice("Direction", [], (direction) => page.set({ direction }));
    this.kind = choice("Added to", [], (kind) => page.set({ steer: `blocks.${this.place[0]}.${kind}` }));
    this.layers = choice("of layer", [], (layer) => page.set({ steer: `blocks.${layer}.${this.place[1]}` }));
    this.where = choice("at", [], (where) => page.set({ where }));
    this.reach = choice("Doses up to", [], (reach) => page.set({ reach: Number(reach), dose: undefined }));
    this.tools = node("div", { class: "pz-tools" }, ...[this.target, this.against, this.direction, this.kind, this.layers, this.where, this.reach].map(({ element }) => element));
    this.words = node("p", { class: "pz-words", role: "status" });
    this.holder = node("div", { class: "pz-drawing pz-doses", onclick: (event) => this.click(event) });
    this.slider = node("input", { type: "range", class: "pz-timeline pz-dose", step: 1, min: 0, "aria-label": "Dose", oninput: () => this.look(Number(this.slider.value)), onchange: () => page.set({ dose: this.facts.doses[this.slider.value] }) });
    this.legend = node("ul", { class: "pz-legend" });
    this.title = node("figcaption", {});
    this.classes = patchClasses("Answer for this image", [["before", "as it is"], ["after", "with the dose"]]);
    this.own = node("figcaption", {});
    this.more = node("details", { class: "pz-more", ontoggle: () => this.facts && this.tabulate() }, node("summary", {}, "Show as table"));
    this.some = node("div", {}, this.tools, this.words,
      node("div", { class: "pz-columns" },
        node("figure", { class: "pz-figure" }, this.title, this.holder, this.slider, this.legend),
        node("figure", { class: "pz-figure" }, this.own, this.classes.element)),
      node("p", { class: "pz-keys" }, "click the chart or move the slider for a dose"), this.more);
    this.about = node("p", { class: "pz-words" });
    root.append(
      node("p", { class: "pz-help" }, "A direction that stands for a class is added to an activation, and the rest of the model runs on. Read the whole curve: a direction that the model uses moves the answer at small doses, where random directions of the same length leave it as it is; where these move it too, the dose is too large to say anything. It does not show that the model uses the direction by itself."),
      this.about, this.some);
    new ResizeObserver(() => this.state && this.holder.clientWidth && this.holder.clientWidth !== this.width && this.chart()).observe(this.holder);
  }

  get place() {
    const [, layer, kind] = this.facts.state.steer.split(".");
    return [layer, kind];
  }

  async update(state, scene, current) {
    const { source } = this.page;
    const found = await source.ask("steering", state);
    if (!current()) return;
    const { says } = found.facts;
    this.about.textContent = says ?? "";
    [this.about.hidden, this.some.hidden, this.tools.hidden] = [!says, Boolean(says), !source.live];
    if (says) {
      this.facts = null;
      return;
    }
    const { facts, arrays } = found;
    if (state.dose !== undefined && !facts.doses.includes(state.dose)) throw new Error(`Expected a dose among ${facts.doses.join(", ")}; found ${state.dose}.`);
    const filled = Object.fromEntries(OF_STEERING.map((key) => [key, facts.state[key]]));
    if (OF_STEERING.some((key) => state[key] !== filled[key])) this.page.fill(filled);
    Object.assign(this, { state: { ...state, ...filled }, scene, facts, probabilities: new Numbers(arrays.own), curve: null });
    this.draw();
    if (!source.live) return;
    const curve = await source.ask("steering", { ...this.state, img: undefined }, { part: 0 }); // the same for every image
    if (!current()) return;
    this.curve = Object.fromEntries(["effect", "interval", "random"].map((name) => [name, new Numbers(curve.arrays[name])]));
    this.draw();
  }

  draw() {
    const { facts, scene, state } = this;
    const classes = scene.labels.map((label, i) => [i, label]);
    this.target.offer(classes);
    this.against.offer([["", "all other classes"], ...classes]);
    this.direction.offer(facts.directions);
    this.kind.offer(facts.kinds.map((kind) => [kind, kind]));
    this.layers.offer(range(scene.layers).map((i) => [i, i]));
    this.where.offer(facts.tokens.map((name) => [name, STEER_TOKENS[name]]));
    this.reach.offer(facts.reaches.map((value) => [value, value]));
    const [layer, kind] = this.place;
    for (const [control, value] of [[this.target, state.target], [this.against, state.against ?? ""], [this.direction, state.direction], [this.kind, kind], [this.layers, layer], [this.where, state.where], [this.reach, state.reach]]) control.select.value = value;
    this.title.textContent = `Probability of ${scene.labels[state.target]} by dose`;
    this.slider.max = facts.doses.length - 1;
    const [own, , measured] = facts.counts;
    const keys = [["own", "this image"]];
    if (this.page.source.live) keys.push(["mean", `${measured} other images, mean and 95 % interval`], ["random", "random directions, mean"]);
    this.legend.replaceChildren(...keys.map(([name, words]) => node("li", {}, node("span", { class: "pz-key", style: `background:${DOSE_COLOURS[name]}`, "aria-hidden": "true" }), node("span", {}, words))));
    this.made = `Dose 1 adds ${state.direction === "means" ? "the difference of the means" : "the readout's direction, as long as the difference of the means"} (length ${brief(facts.length)}, from ${own} images of ${scene.labels[state.target]}).`;
    const asked = facts.doses.indexOf(state.dose);
    const middle = (facts.doses.length - 1) / 2;
    this.look(asked >= 0 ? asked : middle + Math.ceil(middle / 2));
    if (this.more.open) this.tabulate();
  }

  look(at) {
    this.at = at;
    this.slider.value = at;
    const { facts, scene, state, curve } = this;
    const dose = facts.doses[at];
    this.slider.setAttribute("aria-valuetext", `dose ${dose}`);
    const [before, after] = [facts.doses.indexOf(0), at].map((i) => this.probabilities.row(i));
    const likeliest = (values) => range(values.length).sort((a, b) => values[b] - values[a]).slice(0, STEER_CLASSES);
    const listed = [...new Set([state.target, ...likeliest(before), ...likeliest(after)])].slice(0, 2 * STEER_CLASSES);
    this.classes.draw(listed.map((c) => ({ label: scene.labels[c], before: before[c], after: after[c] })), (entry, key) => percentOf(entry[key]));
    this.own.textContent = `This image at dose ${dose}: ${scene.labels[likeliest(after)[0]]}`;
    if (curve) {
      this.said = `At dose ${dose} the probability of ${scene.labels[state.target]} is ${brief(curve.effect.at(at))} (${brief(curve.interval.at(0, at))} to ${brief(curve.interval.at(1, at))}) over ${facts.counts[2]} images of ${state.against === undefined ? "other classes" : scene.labels[state.against]}; with random directions ${this.randomRange(at)}.`;
    } else this.said = this.page.source.live ? "The curve over other images is computed: a moment." : "Without a server there is the curve of this image alone.";
    this.words.textContent = [this.said, this.made].filter(Boolean).join(" ");
    this.chart();
  }

  drawing(size) {
    const { facts, curve, state, scene } = this;
    const rows = curve ? { mean: curve.effect.row(), low: curve.interval.row(0), high: curve.interval.row(1), random: range(curve.random.shape[0]).map((i) => curve.random.row(i)) } : { mean: null };
    const own = facts.doses.map((_, i) => this.probabilities.at(i, state.target));
    return doseDrawing({ doses: facts.doses, ...rows, own, at: facts.doses[this.at] }, { ...size, colours: palette(this.root), title: `Probability of ${scene.labels[state.target]} by dose; the table has the numbers`, below: `dose, added to ${facts.state.steer}` });
  }

  chart() {
    this.width = this.holder.clientWidth || this.width || 560;
    const { svg, across } = this.drawing({ width: this.width, height: DOSE_TALL });
    this.across = across;
    this.holder.replaceChildren(svg);
  }

  click(event) {
    const x = event.clientX - this.holder.getBoundingClientRect().left;
    const { doses } = this.facts;
    const nearest = doses.reduce((best, dose) => (Math.abs(this.across(dose) - x) < Math.abs(this.across(best) - x) ? dose : best));
    this.page.set({ dose: nearest });
  }

  randomRange(at) {
    const { random } = this.curve;
    const values = range(random.shape[0]).map((i) => random.at(i, at));
    return `${brief(Math.min(...values))} to ${brief(Math.max(...values))}`;
  }

  tabulate() {
    const { facts, curve, state } = this;
    if (!facts) return;
    const headings = ["dose", "this image", ...(curve ? ["mean probability", "95 % interval", "random directions"] : [])];
    const rows = facts.doses.map((dose, i) => {
      const own = [String(dose), brief(this.probabilities.at(i, state.target))];
      return curve ? [...own, brief(curve.effect.at(i)), `${brief(curve.interval.at(0, i))} to ${brief(curve.interval.at(1, i))}`, this.randomRange(i)] : own;
    });
    this.more.replaceChildren(this.more.firstChild, node("div", { class: "pz-scroll", tabindex: 0, role: "group", "aria-label": "Numbers of the curve" }, tableOf(headings, rows)));
  }

  exported() {
    const { facts, curve, scene, state } = this;
    if (!facts) throw new Error("There is no curve to save.");
    const of = (axes, { shape, values }) => ({ axes, shape: [...shape], values: Float32Array.from(values) });
    const own = range(this.probabilities.shape[0]).flatMap((i) => this.probabilities.row(i));
    const numbers = { doses: { axes: ["dose"], shape: [facts.doses.length], values: Float32Array.from(facts.doses) }, own: { axes: ["dose", "class"], shape: [...this.probabilities.shape], values: Float32Array.from(own) } };
    if (curve) Object.assign(numbers, { effect: of(["dose"], curve.effect), interval: of(["end", "dose"], curve.interval), random: of(["control", "dose"], curve.random) });
    const title = `Steering towards ${scene.labels[state.target]} at ${facts.state.steer}`;
    return { name: "steering", title, numbers, names: { dose: facts.doses.map(String), class: scene.labels }, svg: () => svgString(this.drawing({ width: 640, height: 360 }).svg), code: facts.code || "" };
  }
}
