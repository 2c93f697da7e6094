// Where each token attends, or who attends to it: one map large, and every head of every layer small.
import { brief, choice, colourBar, expectScore, node, picture, range, SEQUENTIAL, SEQUENTIAL_PIXELS } from "./core.js";
import { countTokens, neighbour, strongest, tokenMap, tokenName } from "./tokens.js";
import { allWeights, fillMean, Pattern, TokenPattern, tokenPatterns } from "./patterns.js";
import { Tiles } from "./tiles.js";
import { attentionSvg } from "./attention_drawing.js";

const ATTENTION_KEYS = "Arrow keys move the token, 0 is the first token, square brackets change the layer, comma and full stop the head, Enter pins, Escape unpins. With a pinned token, arrow keys move the token that it is compared with.";
const ATTENTION_MODES = {
  all: "",
  looked: "",
  layer: "This model has many tokens: the heads of one layer are read at a time.",
  token: "This model has very many tokens: the weights of one token are read at a time. Click a token to read its weights.",
};
const EVERY_LAYER = ["all", "looked"]; // the modes in which the heads of all layers are shown
const COVER = 100; // per cent of the map over the image: below 100, colours are not quite those of the colour bar
const ATTENTION_MAPS = [["heads", "one head"], ["mean", "mean of the layer's heads"], ["rollout", "rollout over all layers"]];

export class Attention {
  static TITLE = "Attention";

  constructor(root, page) {
    Object.assign(this, { page, hover: null, peek: null, patterns: [], few: {} });
    this.layers = choice("Layer", [], (value) => page.set({ layer: Number(value) }));
    this.heads = choice("Head", [], (value) => page.set({ head: Number(value) }));
    this.way = choice("Show", [["to", "where it attends"], ["from", "who attends to it"]], (way) => page.set({ way }));
    this.maps = choice("Map", ATTENTION_MAPS, (map) => page.set({ map }));
    this.scale = choice("Colours", [["row", "each map to its strongest patch"], ["alike", "all heads alike"]], (scale) => page.set({ scale }));
    this.sort = choice("Heads by", [["", "layer"]], (name) => page.set({ sort: name ? `${this.order.select.value}${name}` : undefined }));
    this.order = choice("first", [["", "highest"], ["-", "lowest"]], (sign) => page.set({ sort: `${sign}${this.sort.select.value}` }));
    this.top = choice("how many", [["", "all"], ["8", "8"], ["16", "16"], ["32", "32"]], (top) => page.set({ top: top ? Number(top) : undefined }));
    this.cover = node("input", { type: "range", min: 0, max: 100, oninput: () => page.set({ cover: Number(this.cover.value) }) });
    const cover = node("label", { class: "pz-choice" }, node("span", {}, "Image to map"), this.cover);
    this.map = tokenMap("Attention map", {
      over: (token) => token !== this.hover && this.show({ hover: token }),
      out: () => this.show({ hover: null }),
      pick: (token) => page.set({ token, pin: this.pinned && token === this.state.token ? undefined : "1" }),
    });
    this.bar = colourBar("attention weight");
    this.words = node("p", { class: "pz-words" });
    this.mode = node("p", { class: "pz-help", hidden: true });
    this.tiles = new Tiles("Every head of every layer", {
      pick: (i) => page.set({ ...this.shownHeads[i], map: "heads" }),
      over: (i) => (this.peek?.layer !== this.shownHeads[i].layer || this.peek?.head !== this.shownHeads[i].head) && this.show({ peek: this.shownHeads[i] }),
      out: () => this.peek && this.show({ peek: null }),
    });
    this.finder = node("div", { class: "pz-tools pz-finder" }, this.sort.element, this.order.element, this.top.element);
    this.more = node("details", { class: "pz-more", ontoggle: () => this.tabulate() }, node("summary", {}, "Show as table"));
    this.stage = node("div", {
      class: "pz-stage", tabindex: 0, role: "application", "aria-roledescription": "attention map", "aria-label": `Attention. ${ATTENTION_KEYS}`,
      onkeydown: (event) => this.key(event) && event.preventDefault(),
    }, this.map.element, this.bar.element);
    root.append(
      node("p", { class: "pz-help" }, "Where information may flow from, head by head. Attention is not explanation: see Patching for what matters."),
      node("div", { class: "pz-tools" }, this.layers.element, this.heads.element, this.way.element, this.maps.element, this.scale.element, cover),
      this.mode, this.words,
      node("div", { class: "pz-columns" }, this.stage, node("div", {}, this.finder, this.tiles.element)),
      node("p", { class: "pz-keys" }, "hover previews · click pins, hover then compares · Esc unpins · arrows move · 0 first token · [ ] layer · , . head"),
      this.more,
    );
  }

  get pinned() {
    return this.state.pin === "1";
  }

  // The token whose weights are shown, and the one that it is compared with.
  get token() {
    return this.hover === null || this.pinned || !this.pattern?.has(this.hover) ? this.state.token : this.hover;
  }

  get other() {
    return this.hover !== null && this.hover !== this.token ? this.hover : null;
  }

  // The layer and head of the large map: those of the state, or of the tile under the pointer.
  get place() {
    return this.peek && this.state.map === "heads" && this.of(this.peek.layer) ? this.peek : this.state;
  }

  get pattern() {
    return this.state.map === "rollout" ? this.rollout : this.of(this.place.layer);
  }

  // What is known of a layer: all of it, or the weights of the state's token; undefined for nothing.
  of(layer) {
    return this.patterns[layer] || (this.few.token === this.state.token ? this.few.layers[layer] : undefined);
  }

  // The pointer or a key has come: from now on other tokens are looked at.
  show(values) {
    Object.assign(this, values);
    if (this.state) this.draw();
    this.readLayers();
  }

  key(event) {
    this.readLayers();
    if (!this.state || event.ctrlKey || event.metaKey || event.altKey) return false;
    const { state, scene } = this;
    if (event.key.startsWith("Arrow")) {
      const token = neighbour(scene, (this.pinned ? this.hover : null) ?? this.token, event.key);
      if (this.pinned) this.show({ hover: token });
      else Object.assign(this, { hover: null }).page.set({ token });
      return true;
    }
    const around = (value, step, count) => (value + step + count) % count;
    const head = (step) => this.shownHeads[around(this.chosen(), step, this.shownHeads.length)];
    const moves = {
      0: () => ({ token: 0 }),
      "[": () => ({ layer: around(state.layer, -1, scene.layers) }),
      "]": () => ({ layer: around(state.layer, 1, scene.layers) }),
      ",": () => (state.sort ? head(-1) : { head: around(state.head, -1, scene.heads) }),
      ".": () => (state.sort ? head(1) : { head: around(state.head, 1, scene.heads) }),
      Enter: () => ({ token: this.other ?? this.token, pin: this.pinned && this.other === null ? undefined : "1" }),
      Escape: () => ({ pin: undefined }),
    };
    if (!moves[event.key]) return false;
    const values = moves[event.key]();
    Object.assign(this, { hover: null, peek: null });
    this.page.set(values);
    return true;
  }

  async update(state, scene, current) {
    const image = ["model", "rev", "step", "img"].map((key) => state[key]).join(" ");
    const ask = (part, more = {}) => this.page.source.ask("attention", state, { part, ...more });
    let [found, { arrays: shown }] = await Promise.all([ask(state.layer), this.page.source.ask("answer", state)]);
    if (found.facts.mode === "token" && found.facts.token !== (state.token ?? found.facts.token)) found = await ask(state.layer, { token: state.token });
    if (found.facts.mode === "token" && found.facts.token !== (state.token ?? found.facts.token)) throw new Error("The weights of this token were not computed when the page was made: use the app, or Python.");
    if (!current()) return;
    const { facts } = found;
    if (state.token === undefined) this.page.fill({ token: facts.state.token });
    const fresh = image !== this.image;
    if (fresh) Object.assign(this, { image, rollout: null, scores: null, peek: null, few: {}, reading: null, layersOf: null, drawn: picture(shown.image, 0) });
    if (fresh || !EVERY_LAYER.includes(facts.mode)) this.patterns = Array(scene.layers).fill(null);
    this.patterns[state.layer] ||= facts.mode === "token" ? new TokenPattern(found, scene.prefix.length) : new Pattern(found.arrays, scene.prefix.length);
    Object.assign(this, { state: { ...state, token: state.token ?? facts.state.token }, scene, facts, ask });
    if (state.map === "rollout") await this.readRollout(ask);
    if (state.sort) await this.readScores(ask);
    if (!current()) return;
    if (state.sort) expectScore(this.scores, state.sort);
    this.offer();
    this.list();
    this.draw();
    this.tabulate();
    this.rest(image);
  }

  async readRollout(ask) {
    if (this.rollout) return;
    const { arrays, facts } = await ask(this.facts.parts.rollout);
    Object.assign(this, { rollout: new Pattern(arrays, this.scene.prefix.length), rolloutCode: facts.code });
  }

  async readScores(ask) {
    if (this.scores) return;
    const { arrays, facts } = await ask(this.facts.parts.scores);
    const { values } = arrays.scores;
    const { heads, layers } = this.scene;
    this.scores = facts.scores.map((score, i) => ({ ...score, values: values.subarray(i * layers * heads, (i + 1) * layers * heads) }));
  }

  // What the first drawing does not need: the other layers for the small maps, then the scores of heads.
  async rest(image) {
    await (this.facts.mode === "looked" ? this.readToken() : this.readLayers());
    if (image !== this.image || this.reading === image) return;
    this.reading = image;
    await this.readScores(this.ask).catch(() => {}); // too large, or a page without a server: heads stay by layer
    if (image !== this.image) return;
    this.offer();
    this.list();
    this.draw();
    this.tabulate();
  }

  // What the state's token gives and gets in every layer.
  async readToken() {
    const { image, facts, scene, state: { token } } = this;
    if (this.few.token === token || this.layersOf === image) return;
    const found = await this.ask(facts.parts.token, { token }).catch(() => null);
    if (image !== this.image || !found) return;
    if (found.facts.token !== token) await this.readLayers(); // a page without a server has those of one token
    else if (token === this.state.token) {
      this.few = { token, layers: tokenPatterns(found, scene.layers, scene.prefix.length) };
      this.draw();
    }
  }

  // Every layer that is not there yet; each is drawn as soon as it is.
  async readLayers() {
    const { image, ask } = this;
    if (!EVERY_LAYER.includes(this.facts?.mode) || this.layersOf === image) return;
    this.layersOf = image;
    for (let layer = 0; layer < this.scene.layers; layer += 1) {
      if (this.patterns[layer]) continue;
      const found = await ask(layer).catch(() => null);
      if (image !== this.image) return;
      if (!found) this.layersOf = null; // asked again when the pointer moves on
      if (!found) return;
      this.patterns[layer] = new Pattern(found.arrays, this.scene.prefix.length);
      this.draw();
    }
  }

  offer() {
    const { scene, state, scores } = this;
    this.layers.offer(range(scene.layers).map((i) => [i, i]));
    this.heads.offer(range(scene.heads).map((i) => [i, i]));
    this.sort.offer([["", "layer"], ...(scores || []).map(({ name, about }) => [name, name === about ? name : `${name.replaceAll("_", " ")}: ${about}`])]);
    const [sign, name] = state.sort?.startsWith("-") ? ["-", state.sort.slice(1)] : ["", state.sort || ""];
    const chosen = [[this.layers, state.layer], [this.heads, state.head], [this.way, state.way], [this.maps, state.map], [this.scale, state.scale], [this.sort, name], [this.order, sign], [this.top, state.top ?? ""]];
    for (const [control, value] of chosen) control.select.value = value;
    this.cover.value = Math.min(100, state.cover ?? COVER);
    this.finder.hidden = !scores;
    [this.order, this.top].forEach((control) => { control.element.hidden = !name; });
    this.mode.textContent = ATTENTION_MODES[this.facts.mode];
    this.mode.hidden = !ATTENTION_MODES[this.facts.mode];
    Object.assign(this, { sign, score: (scores || []).find((score) => score.name === name) });
  }

  // Which heads are shown small, and in which order.
  list() {
    const { scene, state, score } = this;
    const layers = EVERY_LAYER.includes(this.facts.mode) ? range(scene.layers) : [state.layer];
    const all = layers.flatMap((layer) => range(scene.heads).map((head) => ({ layer, head })));
    const value = ({ layer, head }) => (this.sign ? -1 : 1) * score.values[layer * scene.heads + head];
    if (score) all.sort((a, b) => value(b) - value(a));
    this.shownHeads = score ? all.slice(0, state.top ?? all.length) : all;
    this.listed = score
      ? { names: this.shownHeads.map((at) => [`${at.layer}.${at.head}  ${Number(this.valueOf(score, at).toPrecision(2))}`, `${at.layer}.${at.head}`]) }
      : { layers, heads: scene.heads };
    const title = score ? `Heads (layer.head), ${this.sign ? "lowest" : "highest"} first: ${score.about}` : "Every head: a row for each layer, a column for each head";
    this.tiles.title.textContent = title;
    this.tiles.canvas.setAttribute("aria-label", title);
    this.lay();
  }

  valueOf(score, { layer, head }) {
    return score.values[layer * this.scene.heads + head];
  }

  chosen() {
    return this.shownHeads.findIndex(({ layer, head }) => layer === this.state.layer && head === this.state.head);
  }

  draw() {
    const { scene, state, token, pattern } = this;
    if (!pattern) return;
    const began = performance.now();
    const count = countTokens(scene);
    if (this.values?.length !== count) Object.assign(this, { values: new Float32Array(count), scratch: new Float32Array(count) });
    const { head } = this.place;
    const own = state.map === "mean" ? fillMean(pattern, state.way, token, this.values, this.scratch)
      : pattern.fill(state.way, state.map === "rollout" ? 0 : head, token, this.values);
    this.alike = state.scale === "alike" ? this.highest(token) : null;
    this.high = Math.max(1e-6, this.alike !== null && state.map === "heads" ? this.alike : own);
    this.map.draw({
      scene, image: this.drawn, values: this.values, map: SEQUENTIAL, pixels: SEQUENTIAL_PIXELS, low: 0, high: this.high, opacity: this.cover.value / 100,
      marked: token, other: this.other, format: brief,
    });
    let beyond = false; // only a prefix token can be
    for (let i = 0; i < scene.prefix.length; i += 1) beyond ||= this.values[i] > this.high * 1.001;
    this.bar.draw(SEQUENTIAL, [[0, "0"], [0.5, brief(this.high / 2)], [1, `${beyond ? "≥ " : ""}${brief(this.high)}`]]);
    this.tiles.what.high = this.alike;
    this.tiles.paint();
    this.tell();
    this.ms = performance.now() - began;
    document.documentElement.dataset.prismaDrawMs = this.ms.toFixed(2);
  }

  // Where the small maps stand; what they show is read again at each drawing.
  lay() {
    const { scene, state, shownHeads } = this;
    const fill = (i, out) => {
      const pattern = this.of(shownHeads[i].layer);
      return pattern?.has(this.token) ? pattern.fill(this.state.way, shownHeads[i].head, this.token, out) : -1;
    };
    this.tiles.draw({ scene, count: shownHeads.length, chosen: state.map === "heads" ? this.chosen() : -1, fill, high: null, ...this.listed });
  }

  // The largest weight of a patch over all heads that have been read.
  highest(token) {
    let high = 1e-6;
    for (const pattern of range(this.scene.layers).map((layer) => this.of(layer))) {
      for (let head = 0; pattern?.has(token) && head < pattern.heads; head += 1) high = Math.max(high, pattern.fill(this.state.way, head, token, this.scratch));
    }
    return high;
  }

  tell() {
    const { scene, state, token, other, values } = this;
    const { layer, head } = this.place;
    const where = { heads: `Layer ${layer}, head ${head}`, mean: `Layer ${layer}, mean of its ${scene.heads} heads`, rollout: "Rollout over all layers" }[state.map];
    const name = `${tokenName(scene, token)}${this.pinned ? " (pinned)" : ""}`;
    let sentence;
    if (this.pinned && other !== null) {
      const there = this.weight(token, other);
      const back = this.weight(other, token);
      sentence = `${where}: ${name} gives ${tokenName(scene, other)} ${brief(there)} of its attention${Number.isNaN(back) ? "" : ` and gets ${brief(back)} of its attention back`}.`;
    } else {
      let best = 0;
      for (let i = 1; i < values.length; i += 1) if (values[i] > values[best]) best = i;
      const verb = state.way === "to" ? "attends most to" : "is attended to most by";
      sentence = `${where}: ${name} ${verb} ${best === token ? "itself" : tokenName(scene, best)} (${brief(values[best])}).`;
    }
    const score = state.map === "heads" && (this.score ? [this.score] : (this.scores || []).slice(0, 2));
    const scored = (score || []).map((one) => ` ${one.about[0].toUpperCase()}${one.about.slice(1)}: ${brief(this.valueOf(one, { layer, head }))} (uniform: ${brief(one.chance)}).`);
    this.words.textContent = sentence + scored.join("");
  }

  // The weight that a query gives to a key in the map that is shown.
  weight(query, key) {
    const { state, pattern, place } = this;
    if (state.map !== "mean") return pattern.at(state.map === "rollout" ? 0 : place.head, query, key);
    let sum = 0;
    for (let head = 0; head < pattern.heads; head += 1) sum += pattern.at(head, query, key);
    return sum / pattern.heads;
  }

  // Two tables: the strongest tokens of the large map, and the scores of the heads that are shown small.
  tabulate() {
    if (!this.more.open || !this.state) return;
    const table = (headings, rows) => node("table", {},
      node("thead", {}, node("tr", {}, ...headings.map((text) => node("th", { scope: "col" }, text)))),
      node("tbody", {}, ...rows.map((cells) => node("tr", {}, ...cells.map((text) => node("td", {}, text))))));
    const scores = this.scores || [];
    const heads = this.shownHeads.map((at) => [String(at.layer), String(at.head), ...scores.map((score) => brief(this.valueOf(score, at)))]);
    this.more.replaceChildren(this.more.firstChild,
      table(["token", "weight"], strongest(this.scene, this.values, 10, brief)),
      node("div", { class: "pz-wide", tabindex: 0, role: "group", "aria-label": "Scores of heads" }, table(["layer", "head", ...scores.map(({ name }) => name.replaceAll("_", " "))], heads)));
  }

  exported() {
    const { state, scene, facts, values } = this;
    const main = state.map === "rollout" ? allWeights(this.rollout, "rollout") : allWeights(this.patterns[state.layer]);
    const numbers = { values: main, shown: { axes: ["token"], shape: [values.length], values: values.slice() } };
    if (this.scores) {
      const shape = [this.scores.length, scene.layers, scene.heads];
      numbers.scores = { axes: ["score", "layer", "head"], shape, values: Float32Array.from(this.scores.flatMap((score) => [...score.values])) };
    }
    const what = { heads: `layer ${state.layer}, head ${state.head}`, mean: `layer ${state.layer}, mean of heads`, rollout: "rollout" }[state.map];
    const way = state.way === "to" ? "from" : "to";
    return {
      name: `attention-${what.replace(/[^a-z0-9]+/g, "-")}`,
      title: `Attention, ${what}, ${way} ${tokenName(scene, state.token)}`,
      numbers, svg: () => attentionSvg(this, `${scene.name}, step ${state.step}: attention, ${what}, ${way} ${tokenName(scene, state.token)}`),
      code: state.map === "rollout" ? this.rolloutCode : facts.code,
    };
  }
}
