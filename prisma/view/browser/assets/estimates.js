// Estimates of patching beside exact runs: the same parts by both, how far they agree, and every way side by side.
import { brief, choice, colourBar, DIVERGING, DIVERGING_PIXELS, node, range, SEQUENTIAL, SEQUENTIAL_PIXELS } from "./core.js";
import { correlation, estimateScatter } from "./estimate_drawing.js";
import { palette, tableOf } from "./drawing.js";
import { Cells, LayerMaps } from "./patch_cells.js";
import { tokenName } from "./tokens.js";

const ESTIMATED = ["heads", "queries", "keys", "values", "tokens"];
const asCorrelation = (value) => (value === null || value === undefined ? "" : value.toFixed(2));

export class Estimates {
  constructor(page) {
    Object.assign(this, { page, found: null, all: new Map() });
    this.way = choice("Estimate", [], (estimate) => page.set({ estimate: estimate || undefined }));
    this.part = choice("of", [], (parts) => page.set({ parts }));
    this.words = node("p", { class: "pz-words", role: "status" });
    const cells = (name) => new Cells(name, { over: (i) => this.say(i), out: () => this.say(null), pick: (i) => this.say(i) });
    const layers = (name) => new LayerMaps((layer) => page.set({ layer }), name);
    this.sides = ["Exact runs", "Estimate"].map((name) => {
      const side = { cells: cells(`${name} of each part`), layers: layers(`${name} of each token`), caption: node("figcaption", {}, name) };
      return { ...side, element: node("figure", { class: "pz-figure" }, side.caption, side.cells.element, side.layers.element) };
    });
    this.bar = colourBar("change of the metric");
    this.holder = node("div", { class: "pz-drawing pz-scatter" });
    this.table = node("div", { class: "pz-scroll pz-steer pz-ways", tabindex: 0, role: "group", "aria-label": "Correlations of the estimates" });
    this.shown = node("div", {},
      node("div", { class: "pz-columns pz-effects" },
        node("div", { class: "pz-stacked" }, ...this.sides.map(({ element }) => element), this.bar.element),
        node("figure", { class: "pz-figure" }, node("figcaption", {}, "Each part: its exact effect and its estimate; on the dashed line they agree"), this.holder)),
      this.table);
    this.element = node("div", { class: "pz-detail", role: "group", "aria-label": "Estimates" },
      node("div", { class: "pz-tools" }, node("h2", {}, "Estimates beside exact runs"), this.way.element, this.part.element),
      node("p", { class: "pz-help" }, "A few passes estimate every patch at once. How near do they come for this pair? A correlation of 1 tells parts apart as exact runs do, 0 says nothing. It is of one pair and of as many numbers as there are parts: with few of them it is nearly arbitrary, and on another pair it may differ."),
      this.words, this.shown);
  }

  // Comes after the rest. `facts` are those of the maps, `known` their cells.
  async update(state, scene, facts, known, current) {
    const { source } = this.page;
    this.element.hidden = !source.live;
    Object.assign(this, { state, scene, facts, known, found: null });
    if (!source.live) return;
    this.way.offer([["", "none"], ...facts.ways]);
    this.way.select.value = facts.ways.some(([name]) => name === state.estimate) ? state.estimate : "";
    [this.shown.hidden, this.words.hidden, this.part.element.hidden] = [true, !state.estimate, true];
    if (!state.estimate) return;
    this.words.textContent = "Estimated: a moment.";
    const ask = (estimate) => source.ask("patching", state, { part: 4, estimate });
    const found = await ask(state.estimate).catch((error) => ({ error }));
    if (!current()) return;
    if (found.error) {
      this.words.textContent = found.error.message;
      return;
    }
    Object.assign(this, { found, all: new Map([[state.estimate, found]]) });
    this.draw();
    if (!facts.exact) return; // of a larger model, one way at a time
    for (const [name] of facts.ways) { // one after the other: each takes a place in the server's queue
      const other = await ask(name).catch(() => null); // a way that this model or metric does not have
      if (!current()) return;
      if (other) this.all.set(name, other);
      this.tabulate();
    }
  }

  // [{exact, estimate}] of a part; what is not known is NaN. Sizes are compared with sizes.
  pairs({ facts, arrays }, part) {
    const estimate = arrays[`estimate.${part}`]?.values;
    if (!estimate) return [];
    const own = { heads: this.known.head, tokens: this.known.token }[part];
    const base = this.facts.runs[this.facts.state.into];
    const exact = own ? Array.from(own.values, (value, i) => (own.exact[i] ? value - base : NaN)) : Array.from(arrays[`exact.${part}`]?.values ?? estimate.map(() => NaN));
    return Array.from(estimate, (value, i) => ({ exact: facts.signed ? exact[i] : Math.abs(exact[i]), estimate: value }));
  }

  agreement(found, part) {
    const both = this.pairs(found, part).filter(({ exact }) => Number.isFinite(exact));
    return { count: both.length, value: correlation(both.map(({ exact, estimate }) => [exact, estimate])) };
  }

  name(index) {
    const { chosen, columns } = this;
    const [layer, column] = [Math.floor(index / columns), index % columns];
    if (chosen === "tokens") return `layer ${layer}, ${tokenName(this.scene, column)}`;
    return `layer ${layer}, ${chosen === "heads" ? "" : `${chosen} of `}head ${column}`;
  }

  draw() {
    if (!this.found) return;
    const { found, scene, state } = this;
    const { parts, signed } = found.facts;
    this.chosen = parts.includes(state.parts) ? state.parts : parts[0];
    this.part.offer(ESTIMATED.filter((part) => parts.includes(part)).map((part) => [part, part === "tokens" ? `tokens (${state.site})` : part]));
    this.part.select.value = this.chosen;
    [this.shown.hidden, this.part.element.hidden] = [false, parts.length < 2];
    const isTokens = this.chosen === "tokens";
    this.columns = isTokens ? this.known.counts.token : scene.heads;
    this.shownPairs = this.pairs(found, this.chosen);
    const high = Math.max(1e-9, ...this.shownPairs.flatMap((pair) => [pair.exact, pair.estimate]).filter(Number.isFinite).map(Math.abs));
    const low = signed ? -high : 0;
    const [map, pixels] = signed ? [DIVERGING, DIVERGING_PIXELS] : [SEQUENTIAL, SEQUENTIAL_PIXELS];
    this.sides.forEach(({ cells, layers, caption }, i) => {
      const values = this.shownPairs.map((pair) => (i ? pair.estimate : pair.exact));
      caption.textContent = `${i ? "Estimated" : "Exact"} ${signed ? "change" : "size of the change"} of the metric, layer by ${isTokens ? "token" : "head"}`;
      [cells.element.hidden, layers.element.hidden] = [isTokens, !isTokens];
      if (isTokens) layers.draw({ scene, layers: range(scene.layers).map((layer) => values.slice(layer * this.columns, (layer + 1) * this.columns)), map, pixels, low, high, marked: Math.min(state.layer, scene.layers - 1) });
      else cells.draw({ rows: scene.layers, columns: scene.heads, values, map, low, high, exact: null, marked: null, format: brief });
    });
    this.bar.draw(map, signed ? [[0, brief(-high)], [0.5, "0: no change"], [1, brief(high)]] : [[0, "0: no change"], [1, brief(high)]]);
    this.holder.replaceChildren(this.scatter());
    this.say(null);
    this.tabulate();
  }

  scatter() {
    const isTokens = this.chosen === "tokens";
    const points = this.shownPairs.map((pair, i) => ({ ...pair, name: this.name(i), short: isTokens ? "" : `L${Math.floor(i / this.columns)} H${i % this.columns}` })).filter(({ exact }) => Number.isFinite(exact));
    const { signed, name } = this.found.facts;
    return estimateScatter(points, { size: 380, colours: palette(this.element), title: `${name} against exact runs: ${points.length} ${this.chosen}`, below: `exact ${signed ? "change" : "size"}`, beside: `estimated ${signed ? "change" : "size"}` });
  }

  say(index) {
    if (!this.found) return;
    const { found, chosen, shownPairs } = this;
    if (index !== null && shownPairs[index]) {
      const { exact, estimate } = shownPairs[index];
      this.words.textContent = `${this.name(index).replace(/^./, (letter) => letter.toUpperCase())}: ${Number.isFinite(exact) ? `${brief(exact)} by an exact run` : "not exact yet"}, ${brief(estimate)} estimated.`;
      return;
    }
    const { count, value } = this.agreement(found, chosen);
    const of = count < shownPairs.length ? `${count} of ${shownPairs.length}` : count;
    const said = count ? `Over ${of} ${chosen} the correlation with exact runs is ${value === null ? "not defined" : asCorrelation(value)}` : `There are no exact runs of ${chosen} to compare it with`;
    this.words.textContent = `${found.facts.name}: ${found.facts.words}. ${said}.`;
  }

  // Correlations of every way that is there, for each part that a way has.
  tabulate() {
    const parts = ESTIMATED.filter((part) => [...this.all.values()].some(({ facts }) => facts.parts.includes(part)));
    const rows = this.facts.ways.filter(([name]) => this.all.has(name)).map(([name, words]) => [words, ...parts.map((part) => asCorrelation(this.agreement(this.all.get(name), part).value))]);
    this.table.replaceChildren(tableOf(["correlation with exact runs", ...parts.map((part) => (part === "tokens" ? `tokens (${this.state.site})` : part))], rows));
  }

  // What it adds to the files of patching.
  exported() {
    if (!this.found) return null;
    const { facts, arrays } = this.found;
    const numbers = facts.parts.map((part) => [`estimate_${part}`, { axes: ["layer", part === "tokens" ? "token" : "head"], ...arrays[`estimate.${part}`] }]);
    return { numbers: Object.fromEntries(numbers.map(([name, { axes, shape, values }]) => [name, { axes, shape: [...shape], values: Float32Array.from(values) }])), code: facts.more, svg: this.scatter() };
  }
}
