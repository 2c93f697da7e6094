// How a model came to be: its curves, what every head attended to at every checkpoint, and when each behaviour appears.
// All checkpoints are in one small file, so that moving through training asks the server for nothing.
import { brief, choice, colourBar, drawn, expectScore, node, picture, range, SEQUENTIAL, SEQUENTIAL_PIXELS } from "./core.js";
import { CHANGES, changeBand, changeOf, changeWords } from "./change_points.js";
import { StepCurves, valueAt } from "./step_curves.js";
import { countTokens, tokenMap, tokenName } from "./tokens.js";
import { Pattern } from "./patterns.js";
import { Tiles } from "./tiles.js";

const PACE = 400; // milliseconds of a checkpoint when playing
const FILM_TALLEST = 200; // CSS pixels of the strip of checkpoints
const NAMED = 4; // heads whose appearance is said
const CHARTS = [["Accuracy", ["test_accuracy", "train_accuracy"]], ["R² (share of the variance explained)", ["test_r2", "train_r2"]], ["Test accuracy of each target", /^test_.+_accuracy$/], ["Loss", ["test_loss", "train_loss", "loss"]], ["Norm of the weights", ["weight_norm"]], ["Norm of the gradient", ["gradient_norm"]]];
const ONE = "This model was published with one checkpoint, so there is no training to look at. Mice of Prisma have many.";
// Which checkpoints are left out, and which one stands for the one that is asked for.
function divergedWords(steps, shown, asked) {
  const words = steps.length === 1 ? `The checkpoint of step ${number(steps[0])} has diverged: its numbers are not finite, and it is` : `The checkpoints of steps ${steps.map(number).join(", ")} have diverged: their numbers are not finite, and they are`;
  return `${words} left out.${steps.includes(asked) ? ` Step ${number(shown)} is shown.` : ""}`;
}
const wordsOf = (name) => name.replaceAll("_", " ");
const number = (step) => step.toLocaleString("en");

export class Training {
  static TITLE = "Training";

  constructor(root, page) {
    Object.assign(this, { page, peek: null, timer: null });
    this.play = node("button", { type: "button", class: "pz-button", onclick: () => this.toggle() }, "Play");
    this.slider = node("input", { type: "range", min: 0, step: 1, class: "pz-timeline", "aria-label": "Checkpoint", oninput: () => { this.stop(); this.go(Number(this.slider.value)); } });
    this.now = node("output", { class: "pz-step" });
    this.layers = choice("Layer", [], (value) => page.set({ layer: Number(value) }));
    this.heads = choice("Head", [], (value) => page.set({ head: Number(value) }));
    this.sort = choice("Score", [], (name) => page.set({ sort: name }));
    this.scale = choice("Colours", [["row", "each map to its strongest patch"], ["alike", "all heads and steps alike"]], (scale) => page.set({ scale }));
    this.words = node("p", { class: "pz-words" });
    this.map = tokenMap("Attention at this step", {});
    this.bar = colourBar("attention weight");
    this.caption = node("figcaption", {});
    this.tiles = new Tiles("Every head at this step: a row for each layer, a column for each head", { pick: (i) => page.set({ layer: Math.floor(i / this.scene.heads), head: i % this.scene.heads }) });
    this.film = new Tiles("This head at every checkpoint", { pick: (i) => this.go(i), over: (i) => this.look(this.steps[i]), out: () => this.look(null) });
    const handlers = { over: (step) => this.look(step), out: () => this.look(null), pick: (step) => { this.stop(); this.page.set({ step }); } };
    this.charts = CHARTS.map(([title]) => new StepCurves(title, handlers));
    this.scored = new StepCurves("Score of heads", handlers);
    this.late = node("p", { class: "pz-quiet", role: "status" });
    this.gone = node("p", { class: "pz-trouble", hidden: true });
    this.appears = node("ul", { class: "pz-appears" });
    this.more = node("details", { class: "pz-more", ontoggle: () => this.tabulate() }, node("summary", {}, "Show as table"));
    this.one = node("p", { class: "pz-help", hidden: true }, ONE);
    this.moving = node("div", {},
      node("div", { class: "pz-player" }, this.play, this.now, this.slider),
      node("div", { class: "pz-tools" }, this.layers.element, this.heads.element, this.sort.element, this.scale.element),
      this.words,
      node("div", { class: "pz-columns pz-training" },
        node("figure", { class: "pz-figure" }, this.caption, this.map.element, this.bar.element),
        this.tiles.element),
      this.film.element);
    root.append(
      node("p", { class: "pz-help" }, "What the model learned and when. Move through the checkpoints; a click on a curve goes to the nearest one."),
      this.gone, this.one, this.moving, node("div", { class: "pz-charts" }, ...this.charts.map(({ element }) => element), this.scored.element),
      this.late, this.appears, this.more,
    );
  }

  toggle() {
    if (this.timer) this.stop();
    else this.start();
  }

  start() {
    const slow = matchMedia("(prefers-reduced-motion: reduce)").matches ? 3 : 1;
    this.play.textContent = "Stop";
    this.timer = setInterval(() => this.advance(), PACE * slow);
    if (this.index === this.steps.length - 1) this.go(0);
  }

  advance() {
    if (!this.map.element.isConnected || this.map.element.offsetParent === null || this.index >= this.steps.length - 1) this.stop();
    else this.go(this.index + 1);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.play.textContent = "Play";
  }

  go(index) {
    return this.page.set({ step: this.steps[index] });
  }

  look(step) {
    if (this.peek === step || !this.steps?.length) return;
    this.peek = step;
    [...this.charts, this.scored].forEach((chart) => chart.curves && chart.hover(step));
    if (this.state && this.pattern) this.tell();
  }

  async update(state, scene, current) {
    const [whole, { arrays: shown }] = await Promise.all([this.page.source.ask("training", state), this.page.source.ask("answer", state)]);
    if (!current()) return;
    const { facts, arrays } = whole; // pages without a server have the scores in it
    const { steps } = facts;
    const place = [scene.name, scene.rev, state.img].join(" ");
    if (place !== this.place) {
      Object.assign(this, { place, whole, facts, steps, scene, scores: null, pattern: arrays.rows ? rowsOf(arrays, scene) : null, image: picture(shown.image, 0) });
      this.offer();
      this.curves();
    }
    const before = steps.filter((step) => step <= state.step).length - 1; // of a step that has diverged, the one before
    Object.assign(this, { state, index: Math.max(0, before), step: steps[Math.max(0, before)] });
    this.gone.textContent = divergedWords(facts.diverged, this.step, state.step);
    this.gone.hidden = !facts.diverged.length;
    [this.one.hidden, this.moving.hidden, this.scored.element.hidden] = [steps.length > 1, steps.length < 2, steps.length < 2];
    this.draw();
    if (steps.length > 1) await this.readScores(state, current);
    if (current()) this.tabulate();
  }

  // The scores of heads come second: the first time, every checkpoint has to be run over the test images.
  async readScores(state, current) {
    if (!this.scores) {
      this.late.textContent = "Scores of heads at every checkpoint are computed the first time that anybody asks for them.";
      try {
        const { facts, arrays } = this.facts.scores ? this.whole : await this.page.source.ask("training", state, { part: 1 });
        if (!current()) return;
        Object.assign(this, { scores: facts.scores, images: facts.images, code: facts.code, values4: arrays.scores.values, first: arrays.appears.values, changes: arrays });
        this.late.textContent = `Scores are means over ${facts.images} test images.${arrays.change ? CHANGES : ""}`;
        this.sort.offer(this.scores.map(({ name, about }) => [name, name === about ? name : `${wordsOf(name)}: ${about}`]));
      } catch (error) {
        if (current()) this.late.textContent = error.message;
        return;
      }
    }
    expectScore(this.scores, state.sort);
    this.drawScores();
    this.tell();
  }

  offer() {
    const { scene, steps } = this;
    this.slider.max = steps.length - 1;
    this.layers.offer(range(scene.layers).map((i) => [i, i]));
    this.heads.offer(range(scene.heads).map((i) => [i, i]));
  }

  // The logged curves; a run that logged nothing has none.
  curves() {
    const { curves } = this.facts;
    this.charts.forEach((chart, i) => {
      const names = CHARTS[i][1] instanceof RegExp ? Object.keys(curves).filter((name) => CHARTS[i][1].test(name)) : CHARTS[i][1];
      const found = names.filter((name) => curves[name]).map((name) => ({ name: name === "loss" ? "loss of each batch" : wordsOf(name), ...curves[name] }));
      chart.element.hidden = !found.length;
      if (found.length) chart.draw(found, this.steps, this.steps.at(-1));
    });
  }

  draw() {
    const { scene, state, index, steps, pattern } = this;
    const began = performance.now();
    this.charts.forEach((chart) => chart.curves && !chart.element.hidden && chart.move(this.step));
    if (!pattern) return;
    this.slider.value = index;
    this.slider.setAttribute("aria-valuetext", `step ${number(this.step)}`);
    this.now.textContent = `step ${number(this.step)}`;
    for (const [control, value] of [[this.layers, state.layer], [this.heads, state.head], [this.scale, state.scale]]) control.select.value = value;
    const count = countTokens(scene);
    if (this.values?.length !== count) this.values = new Float32Array(count);
    const own = this.fill(index, state.layer, state.head, this.values);
    const alike = state.scale === "alike" ? this.highest() : null;
    this.high = Math.max(1e-6, alike ?? own);
    this.caption.textContent = `Layer ${state.layer}, head ${state.head}, from ${this.facts.of}`;
    this.map.draw({ scene, image: this.image, values: this.values, map: SEQUENTIAL, pixels: SEQUENTIAL_PIXELS, low: 0, high: this.high, format: brief });
    let beyond = false; // only a prefix token can be
    for (let i = 0; i < scene.prefix.length; i += 1) beyond ||= this.values[i] > this.high * 1.001;
    this.bar.draw(SEQUENTIAL, [[0, "0"], [0.5, brief(this.high / 2)], [1, `${beyond ? "≥ " : ""}${brief(this.high)}`]]);
    this.tiles.draw({
      scene, layers: range(scene.layers), heads: scene.heads, count: scene.layers * scene.heads, chosen: state.layer * scene.heads + state.head, high: alike,
      fill: (i, out) => this.fill(index, Math.floor(i / scene.heads), i % scene.heads, out),
    });
    this.film.draw({ scene, names: steps.map(number), widest: Infinity, tallest: FILM_TALLEST, count: steps.length, chosen: index, high: alike, fill: (i, out) => this.fill(i, state.layer, state.head, out) });
    if (this.scores && this.drawnScore === this.scoreKey()) this.scored.move(this.step);
    this.tell();
    this.ms = performance.now() - began;
    document.documentElement.dataset.prismaDrawMs = this.ms.toFixed(2);
  }

  fill(index, layer, head, out) {
    return this.pattern.fill("to", 0, (index * this.scene.layers + layer) * this.scene.heads + head, out);
  }

  highest() {
    return this.pattern.scales.reduce((high, scale) => Math.max(high, scale), 0);
  }

  // The score that is drawn: the state's, else the share of attention in which a head has gained the most.
  get score() {
    const wanted = this.state.sort?.replace(/^-/, "");
    const found = this.scores.findIndex(({ name }) => name === wanted);
    if (found >= 0) return found;
    const last = this.steps.length - 1;
    const gained = (i) => (this.scores[i].share ? Math.max(...this.all(i, last).map((value, head) => value - this.all(i, 0)[head])) : -1);
    return range(this.scores.length).reduce((best, i) => (gained(i) > gained(best) ? i : best));
  }

  // Which numbers of the scores [step, score, layer, head] belong to a score at a step.
  all(score, index) {
    const heads = this.scene.layers * this.scene.heads;
    const start = (index * this.scores.length + score) * heads;
    return this.values4.subarray(start, start + heads);
  }

  scoreKey() {
    return [this.place, this.score, this.state.layer, this.state.head].join(" ");
  }

  drawScores() {
    const { scene, state, steps } = this;
    const key = this.scoreKey();
    const { score } = this;
    const about = this.scores[score];
    this.sort.select.value = about.name;
    if (this.drawnScore === key) return;
    this.drawnScore = key;
    const chosen = state.layer * scene.heads + state.head;
    const count = scene.layers * scene.heads;
    const curve = (head) => ({ steps, values: steps.map((_, i) => this.all(score, i)[head]), change: changeBand(changeOf(this.changes, score * count + head), steps) });
    const heads = range(count).filter((head) => head !== chosen).map((head) => ({ ...curve(head), quiet: true }));
    const title = `${about.about[0].toUpperCase()}${about.about.slice(1)}`;
    Object.assign(this.scored, { title });
    this.scored.caption.textContent = `${title}; other heads are thin`;
    this.scored.draw([...heads, { name: `layer ${state.layer}, head ${state.head}`, ...curve(chosen) }, { name: "uniform attention", steps, values: steps.map(() => about.chance) }], steps, this.step);
    this.say(score, chosen);
  }

  // When behaviours appear: the first checkpoint at which a number has reached half of what it is at the end.
  say(score, chosen) {
    const { scene, steps } = this;
    const last = this.all(score, steps.length - 1);
    const strongest = [...last.keys()].sort((a, b) => last[b] - last[a]).slice(0, NAMED);
    const heads = [...new Set([chosen, ...strongest])].map((head) => {
      const step = this.first[score * last.length + head];
      return this.sentence(`${wordsOf(this.scores[score].name)} of layer ${Math.floor(head / scene.heads)}, head ${head % scene.heads}`, last[head], step, changeWords(changeOf(this.changes, score * last.length + head)));
    });
    for (const name of ["test_accuracy", "test_r2"]) {
      const curve = this.facts.curves[name];
      if (!curve || curve.values.at(-1) <= 0) continue;
      const half = curve.values.at(-1) / 2;
      heads.unshift(this.sentence(wordsOf(name), curve.values.at(-1), curve.steps[curve.values.findIndex((value) => value >= half)]));
    }
    this.appears.replaceChildren(...heads);
  }

  sentence(what, final, step, more = "") {
    const near = this.steps.find((some) => some >= step) ?? this.steps.at(-1);
    const when = step === this.steps[0] ? "it is above half of that from the first checkpoint on" : `it first reaches half of that at step ${number(step)}`;
    const words = `${what[0].toUpperCase()}${what.slice(1)} ends at ${brief(final)}; ${when}.${more}`;
    if (step === this.steps[0]) return node("li", {}, words);
    return node("li", {}, words, " ", node("button", { type: "button", class: "pz-link", onclick: () => { this.stop(); this.page.set({ step: near }); } }, `Go to step ${number(near)}`));
  }

  tell() {
    const { scene, state, facts, steps } = this;
    const step = this.peek ?? this.step;
    const index = steps.indexOf(step);
    const values = this.peek === null ? this.values : (this.peeked ||= new Float32Array(this.values.length));
    if (this.peek !== null) this.fill(index, state.layer, state.head, values);
    let best = 0;
    for (let i = 1; i < values.length; i += 1) if (values[i] > values[best]) best = i;
    const logged = ["test_accuracy", "test_r2", "test_loss"].filter((name) => facts.curves[name]).map((name) => [name, valueAt(facts.curves[name], step)]);
    const said = logged.filter(([, value]) => value !== undefined).map(([name, value]) => ` ${wordsOf(name)} ${brief(value)}.`.replace(/ [a-z]/, (letter) => letter.toUpperCase()));
    if (this.scores) {
      const { score } = this;
      said.push(` ${wordsOf(this.scores[score].name)} of this head: ${brief(this.all(score, index)[state.layer * scene.heads + state.head])} (uniform: ${brief(this.scores[score].chance)}).`.replace(/ [a-z]/, (letter) => letter.toUpperCase()));
    }
    this.words.textContent = `Step ${number(step)}: layer ${state.layer}, head ${state.head} attends from ${facts.of} most to ${tokenName(scene, best)} (${brief(values[best])}).${said.join("")}`;
  }

  tabulate() {
    if (!this.more.open || !this.state) return;
    const { scene, state, steps, facts } = this;
    const names = Object.keys(facts.curves);
    const chosen = state.layer * scene.heads + state.head;
    const scores = this.scores ? this.scores.map(({ name }, i) => [wordsOf(name), (at) => brief(this.all(i, at)[chosen])]) : [];
    const cell = (name, step) => { const value = valueAt(facts.curves[name], step); return value === undefined ? "" : brief(value); };
    const rows = steps.map((step, at) => [number(step), ...names.map((name) => cell(name, step)), ...scores.map(([, of]) => of(at))]);
    const headings = ["step", ...names.map(wordsOf), ...scores.map(([name]) => name)];
    this.more.replaceChildren(this.more.firstChild, node("div", { class: "pz-wide", tabindex: 0, role: "group", "aria-label": "Numbers of training" },
      node("table", {}, node("caption", {}, `Scores of layer ${state.layer}, head ${state.head}`),
        node("thead", {}, node("tr", {}, ...headings.map((text) => node("th", { scope: "col" }, text)))),
        node("tbody", {}, ...rows.map((cells) => node("tr", {}, ...cells.map((text) => node("td", {}, text))))))));
  }

  exported() {
    const { scene, steps, facts, state } = this;
    const numbers = {};
    if (this.scores) numbers.values = { axes: ["step", "score", "layer", "head"], shape: [steps.length, this.scores.length, scene.layers, scene.heads], values: this.values4 };
    if (this.pattern) {
      const tokens = countTokens(scene);
      const values = new Float32Array(steps.length * scene.layers * scene.heads * tokens);
      for (let row = 0; row * tokens < values.length; row += 1) this.pattern.fill("to", 0, row, values.subarray(row * tokens, (row + 1) * tokens));
      numbers.attention = { axes: ["step", "layer", "head", "key"], shape: [steps.length, scene.layers, scene.heads, tokens], values };
    }
    for (const name of this.changes?.change ? ["change", "jump"] : []) {
      numbers[name] = { axes: ["value, first, last", "score", "layer", "head"], shape: [3, this.scores.length, scene.layers, scene.heads], values: this.changes[name].values };
    }
    numbers.steps = { axes: ["step"], shape: [steps.length], values: Float32Array.from(steps) };
    for (const [name, curve] of Object.entries(facts.curves)) {
      numbers[`${name}_steps`] = { axes: ["line"], shape: [curve.steps.length], values: Float32Array.from(curve.steps) };
      numbers[name] = { axes: ["line"], shape: [curve.values.length], values: Float32Array.from(curve.values) };
    }
    return { name: "training", title: `Training, step ${number(this.step)}`, numbers, svg: () => trainingSvg(this), code: this.code || "" };
  }
}

// Rows [step, layer, head, key] as the queries of one head.
function rowsOf(arrays, scene) {
  const as = (array, last) => ({ ...array, shape: [1, array.values.length / (last || 1), last] });
  const patches = scene.grid[0] * scene.grid[1];
  return new Pattern({ pattern: as(arrays.rows, patches), "pattern.scale": arrays["rows.scale"], "pattern.prefix": arrays["rows.prefix"] }, scene.prefix.length);
}

// The charts below each other, then the small maps.
function trainingSvg({ charts, scored, tiles, film, pattern }) {
  const text = (words, size, x, y, anchor) => drawn("text", { x, y, "font-size": size, "text-anchor": anchor, fill: "#1d2129" }, words);
  const parts = [];
  let [y, width] = [26, 0];
  const add = (title, wide, high, ...children) => {
    parts.push(text(title, 13, 10, y, "start"), drawn("g", { transform: `translate(10,${y + 8})` }, ...children));
    [y, width] = [y + high + 38, Math.max(width, wide)];
  };
  for (const chart of [...charts, scored]) {
    if (chart.svg && !chart.element.hidden) add(chart.title, chart.width, Number(chart.svg.getAttribute("height")), ...chart.svg.cloneNode(true).children);
  }
  for (const small of pattern ? [tiles, film] : []) {
    const { url, width: wide, height, labels } = small.picture();
    add(small.title.textContent, wide, height, drawn("image", { href: url, width: wide, height }), ...labels.map(([words, left, top]) => text(words, 10, left, top + 4, "middle")));
  }
  const background = drawn("rect", { width: "100%", height: "100%", fill: "#ffffff" });
  return new XMLSerializer().serializeToString(drawn("svg", { viewBox: `0 0 ${width + 20} ${y}`, width: width + 20, height: y, "font-family": "sans-serif" }, background, ...parts));
}
