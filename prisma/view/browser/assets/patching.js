// Patching: which heads and tokens carry the difference between two images; estimates at once, exact cells as they come.
import { brief, choice, colourBar, DIVERGING, DIVERGING_PIXELS, node, picture, range } from "./core.js";
import { Ablating, PatchDetail } from "./patch_detail.js";
import { Circuit } from "./circuit.js";
import { Estimates } from "./estimates.js";
import { Cells, LayerMaps } from "./patch_cells.js";
import { Paths } from "./paths.js";
import { Painting } from "./painting.js";
import { patchExport } from "./patch_export.js";
import { decimals, PatchRuns } from "./patch_runs.js";
import { layout, neighbour, tokenMap, tokenName } from "./tokens.js";

const PATCH_METRICS = { logit_diff: "difference of logits", logit: "logit", probability: "probability" };
const PATCH_SITES = { resid_pre: "stream before the block", resid_mid: "stream after attention", resid_post: "stream after the block", attn_out: "output of attention", mlp_out: "output of the MLP" };
const PATCH_INTO = [["clean", "corrupt values into the clean run"], ["corrupt", "clean values into the corrupt run"]];
const PATCH_UNITS = [["recovered", "recovered share of the gap"], ["metric", "the metric itself"]];
const LEAST_REACH = 1e-3; // smaller differences are rounding errors, and get no colour

export class Patching {
  static TITLE = "Patching";

  constructor(root, page) {
    Object.assign(this, { root, page, hover: null });
    this.controls(page);
    this.runs = new PatchRuns(page, () => this.later());
    this.detail = new PatchDetail(page);
    this.ablating = new Ablating(page);
    this.circuit = new Circuit(page);
    this.estimates = new Estimates(page);
    this.paths = new Paths(page);
    this.painting = new Painting(page);
    this.pictures = node("div", { class: "pz-runs" });
    this.words = node("p", { class: "pz-words", role: "status" });
    this.headBar = colourBar("effect of a head");
    this.tokenBar = colourBar("effect of a token");
    this.heads = new Cells("Effect of each head", { over: (i) => this.look("head", i), out: () => this.look(null), pick: (i) => this.pickHead(i) });
    this.tokens = tokenMap("Effect of each token", { over: (token) => this.look("token", token), out: () => this.look(null), pick: (token) => this.pickToken(token) });
    this.layers = new LayerMaps((layer) => page.set({ layer }));
    this.stage = node("div", { class: "pz-stage", tabindex: 0, role: "application", "aria-label": "Effect of each token in one layer. Arrow keys read the tokens, square brackets change the layer, Enter chooses a token.", onkeydown: (event) => this.key(event) }, this.tokens.element);
    new ResizeObserver(() => this.known && this.dots()).observe(this.tokens.element);
    this.title = node("figcaption", {});
    this.table = node("tbody", {});
    this.more = node("details", { class: "pz-more", ontoggle: () => this.tell() }, node("summary", {}, "Show as table"),
      node("table", {}, node("thead", {}, node("tr", {}, ...["part", "metric", "recovered", "how"].map((text) => node("th", { scope: "col" }, text)))), this.table));
    root.append(
      node("p", { class: "pz-help" }, "Each cell is one run in which a single head, or token, holds what it computed for the other image: a cause, for this pair of images and this metric."),
      this.painting.element, this.tools, this.pictures, this.words,
      this.running,
      node("div", { class: "pz-columns pz-effects" },
        node("div", { class: "pz-stacked" },
          node("figure", { class: "pz-figure" }, node("figcaption", {}, "Layer by head (attn.z)"), this.heads.element, this.headBar.element),
          node("figure", { class: "pz-figure" }, node("figcaption", {}, "Layer by token; choose a layer"), this.layers.element)),
        node("figure", { class: "pz-figure" }, this.title, this.stage, this.tokenBar.element)),
      node("p", { class: "pz-keys" }, "hover, or arrows on a map, for the numbers · click or Enter shows what a patch changes · full cells and dots are exact, smaller cells are first-order estimates"),
      this.more, this.detail.element, this.estimates.element, this.ablating.element, this.paths.element, this.circuit.element,
    );
  }

  controls(page) {
    const number = (key) => (value) => page.set({ [key]: Number(value) });
    this.metric = choice("Metric", [], (metric) => page.set({ metric }));
    this.target = choice("Class", [], number("target"));
    this.against = choice("minus class", [], number("against"));
    this.into = choice("Direction", PATCH_INTO, (into) => page.set({ into }));
    this.site = choice("Tokens of", [], (site) => page.set({ site }));
    this.unit = choice("Colours", PATCH_UNITS, (unit) => page.set({ unit }));
    const asking = [this.metric, this.target, this.against, this.into, this.site].map(({ element }) => element);
    this.tools = node("div", { class: "pz-tools" }, ...asking, this.unit.element);
    this.asking = asking;
    this.progress = node("progress", { max: 1, "aria-label": "Exact cells" });
    this.status = node("span", { role: "status" });
    this.stop = node("button", { type: "button", onclick: () => this.runs.cancel() }, "Cancel");
    this.again = node("button", { type: "button", onclick: () => { this.runs.again(this.state); this.draw(); } }, "Go on");
    this.all = node("button", { type: "button", onclick: () => { this.runs.phase = this.runs.phase === "running" ? "running" : "idle"; page.set({ every: "1" }); } }, "");
    this.running = node("div", { class: "pz-running" }, this.progress, this.status, this.stop, this.again, this.all);
  }

  async update(state, scene, current) {
    const { source } = this.page;
    const [found, model, detail, ablated] = await Promise.all([source.ask("patching", state), source.ask("model", state), this.detail.ask(state), this.ablating.ask(state)]);
    if (!current()) return;
    const filled = Object.fromEntries(Object.entries(found.facts.state).filter(([, value]) => value !== null));
    if (found !== this.found) {
      this.page.fill(filled);
      this.images = { clean: picture(found.arrays.clean, 0), corrupt: picture(found.arrays.corrupt, 0) };
    }
    Object.assign(this, { found, facts: found.facts, scene, state: { ...state, ...filled }, detailed: detail, ablated });
    this.layer = Math.min(state.layer, scene.layers - 1);
    this.runs.ask(scene, found);
    this.known = this.runs.known;
    if (detail) this.known.put(detail.facts.cell.axis, detail.facts.cell.layer, detail.facts.cell.unit, detail.facts.runs.after);
    this.offer(model.arrays.thumbnails);
    this.draw();
    this.runs.start(this.state);
    this.draw();
    await this.estimates.update(this.state, scene, this.facts, this.known, current);
    if (current()) await this.paths.update(this.state, this.facts.circuit, current);
    if (current()) await this.circuit.update(this.state, this.facts.circuit, current);
  }

  offer(thumbnails) {
    const { state, scene, facts, page } = this;
    this.metric.offer(scene.metrics.map((name) => [name, PATCH_METRICS[name] || name]));
    this.site.offer(scene.sites.map((name) => [name, PATCH_SITES[name] || name]));
    const classes = scene.labels.map((label, i) => [i, label]);
    this.target.offer(classes);
    this.against.offer(classes);
    for (const name of ["metric", "target", "against", "into", "site", "unit"]) this[name].select.value = state[name];
    this.against.element.hidden = state.metric !== "logit_diff";
    this.unit.select.disabled = facts.gap === null;
    this.asking.forEach((element) => { if (!page.source.live) element.hidden = true; });
    this.painting.element.hidden = !page.source.live;
    this.painting.update(state, scene, thumbnails, this.images.clean);
    this.pictures.replaceChildren(...["clean", "corrupt"].map((run) => this.pictureOf(run)));
  }

  pictureOf(run) {
    const { facts, images } = this;
    const { label, probability } = facts.answers[run];
    images[run].setAttribute("class", "pz-thumb");
    images[run].setAttribute("role", "img");
    images[run].setAttribute("aria-label", facts.captions[run]);
    const changed = run === facts.state.into ? ", changed by each patch" : ", gives the new values";
    return node("figure", {}, images[run], node("figcaption", {}, node("strong", {}, `${run} run${changed}`), node("span", {}, facts.captions[run]),
      node("span", {}, `answers ${label} (${(100 * probability).toFixed(1)} %)`), node("span", {}, `${facts.metric}: ${brief(facts.runs[run])}`)));
  }

  // Colours of the heads, or of the tokens: the changed run is the middle. They show a share of the gap, where there is
  // one and it is chosen, else the metric. A class token that carries all of the rest must not hide the patches.
  scale(axis) {
    const { facts, known, scene } = this;
    const base = facts.runs[facts.state.into];
    const isShare = this.state.unit === "recovered" && facts.gap !== null;
    const of = isShare ? (value) => (value - base) / facts.gap : (value) => value;
    const middle = isShare ? 0 : base;
    let [reach, all] = [LEAST_REACH, LEAST_REACH];
    known[axis].values.forEach((value, i) => {
      const size = Number.isNaN(value) ? 0 : Math.abs(of(value) - middle);
      all = Math.max(all, size);
      if (axis === "head" || i % known.counts.token >= scene.prefix.length) reach = Math.max(reach, size);
    });
    const format = isShare ? (value) => decimals(value, 2) : brief;
    const [low, high] = [middle - reach, middle + reach];
    const beyond = all > 1.001 * reach ? ["≤ ", "≥ "] : ["", ""]; // only a prefix token can be
    const ticks = [[0, `${beyond[0]}${format(low)}`], [0.5, isShare ? "0: nothing recovered" : `${format(middle)}: no patch`], [1, `${beyond[1]}${format(high)}`]];
    return { of, isShare, middle, low, high, format, ticks };
  }

  recovered(value) {
    const { facts } = this;
    return facts.gap === null ? null : (value - facts.runs[facts.state.into]) / facts.gap;
  }

  later() {
    this.pending ??= requestAnimationFrame(() => { this.pending = null; if (this.known === this.runs.known) this.draw(); });
  }

  draw() {
    const { scene, known, facts, layer, state } = this;
    if (!known) return;
    const [forHeads, forTokens] = [this.scale("head"), this.scale("token")];
    this.headBar.draw(DIVERGING, forHeads.ticks);
    this.tokenBar.draw(DIVERGING, forTokens.ticks);
    const shown = (values) => Array.from(values, forTokens.of);
    const { low, high, format } = forTokens;
    const colours = { rows: scene.layers, columns: scene.heads, values: Array.from(known.head.values, forHeads.of), map: DIVERGING, low: forHeads.low, high: forHeads.high, exact: known.head.exact, format: forHeads.format };
    this.heads.draw({ ...colours, marked: state.cell === "head" ? layer * scene.heads + Math.min(state.head, scene.heads - 1) : null });
    const rows = known.rows("token").map(shown);
    this.title.textContent = `Layer by token: ${PATCH_SITES[state.site] || state.site} (${state.site}), layer ${layer}`;
    this.token = { scene, image: this.images[facts.state.into], values: rows[layer], map: DIVERGING, pixels: DIVERGING_PIXELS, low, high, format, marked: this.markedToken() };
    this.tokens.draw(this.token);
    this.dots();
    this.layers.draw({ scene, layers: rows, map: DIVERGING, pixels: DIVERGING_PIXELS, low, high, marked: layer });
    this.sayRuns();
    this.tell();
    const into = facts.state.into;
    this.detail.draw(this.detailed, scene, this.images[into], (cell, value, share, how) => this.sentence(cell.axis, cell.layer, cell.unit, value, how));
    this.ablating.draw(this.ablated, state, scene, colours);
    this.estimates.draw();
  }

  markedToken() {
    if (this.hover?.axis === "token") return this.hover.unit;
    return this.state.cell === "token" ? this.state.token : null;
  }

  // A dot in every token that is exact, where others are estimates.
  dots() {
    const { known, layer, scene, images } = this;
    if (known.done.has("tokens")) return;
    const canvas = this.tokens.element;
    const image = images[this.facts.state.into];
    const { boxes } = layout(scene, canvas.clientWidth, image.height / image.width);
    const context = canvas.getContext("2d");
    boxes.forEach(([x, y, width, height], token) => {
      if (!known.isExact("token", layer, token)) return;
      const radius = Math.max(2, Math.min(width, height) * 0.13);
      for (const [style, size] of [["#ffffff", radius + 1], ["#10131a", radius]]) {
        context.fillStyle = style;
        context.beginPath();
        context.arc(x + width - radius - 2, y + radius + 2, size, 0, 7);
        context.fill();
      }
    });
  }

  sayRuns() {
    const { runs, facts, page, state, known } = this;
    const isRunning = runs.phase === "running";
    const finished = known.done.has("heads") && known.done.has("top");
    this.root.dataset.runs = finished && !isRunning && (!state.every || known.done.has("tokens")) ? "done" : runs.phase;
    this.progress.hidden = !isRunning;
    if (runs.progress && runs.progress.total) this.progress.value = runs.progress.done / runs.progress.total;
    else this.progress.removeAttribute("value");
    this.stop.hidden = !isRunning;
    this.again.hidden = !["cancelled", "failed"].includes(runs.phase);
    this.all.hidden = !page.source.live || known.done.has("tokens") || Boolean(state.every) || isRunning;
    this.all.textContent = `Every token exactly (${facts.counts.tokens.toLocaleString("en")} runs)`;
    const resting = known.done.has("tokens") ? "Every cell is exact." : finished ? `Every head and ${Math.min(facts.top, facts.counts.tokens)} tokens are exact; the others are estimates.` : page.source.live ? "" : "Smaller cells are estimates.";
    this.status.textContent = [facts.estimate ? `No estimate: ${facts.estimate}.` : "", runs.status || (isRunning ? "Exact cells are computed." : resting)].filter(Boolean).join(" ");
    this.running.setAttribute("aria-busy", String(isRunning));
  }

  // What a cell is, in words.
  sentence(axis, layer, unit, value, how) {
    const { facts, scene } = this;
    const { into } = facts.state;
    const source = into === "clean" ? "corrupt" : "clean";
    const what = axis === "head" ? `head ${unit}` : `${tokenName(scene, unit)} (${this.state.site})`;
    if (Number.isNaN(value)) return `Layer ${layer}, ${what}: not computed yet.`;
    const share = this.recovered(value);
    const gap = share === null ? "the two runs do not differ in it, so there is no gap to recover" : `${decimals(share, 3)} of the gap to the ${source} run (${brief(facts.runs[source])})`;
    const verb = how === "exact" ? "goes" : "is estimated, to first order, to go";
    return `Layer ${layer}, ${what} holds its ${source} value in the ${into} run: ${facts.metric} ${verb} from ${brief(facts.runs[into])} to ${brief(value)}, ${gap}.`;
  }

  tell() {
    if (!this.known) return;
    const { facts, known, hover, state, layer } = this;
    const at = hover || (state.cell ? { axis: state.cell, layer, unit: state[state.cell] ?? 0 } : null);
    const gap = facts.gap === null ? "The two runs do not differ in the metric: there is no gap to recover." : `Gap: ${brief(Math.abs(facts.gap))}.`;
    this.words.textContent = at
      ? this.sentence(at.axis, at.layer, at.unit, known.row(at.axis, at.layer)[at.unit], known.isExact(at.axis, at.layer, at.unit) ? "exact" : "estimate")
      : `${facts.metric} without a patch: clean run ${brief(facts.runs.clean)}, corrupt run ${brief(facts.runs.corrupt)}. ${gap}`;
    if (this.more.open) this.table.replaceChildren(...this.tableRows());
  }

  // Every head, and the tokens of the layer.
  tableRows() {
    const { known, scene, layer } = this;
    const row = (name, axis, at, unit, value) => {
      const share = Number.isNaN(value) ? null : this.recovered(value);
      const how = Number.isNaN(value) ? "not yet" : known.isExact(axis, at, unit) ? "exact" : "estimate";
      return node("tr", {}, ...[name, Number.isNaN(value) ? "" : brief(value), share === null ? "" : decimals(share, 3), how].map((text) => node("td", {}, text)));
    };
    const heads = range(scene.layers).flatMap((at) => Array.from(known.row("head", at), (value, head) => row(`layer ${at}, head ${head}`, "head", at, head, value)));
    return [...heads, ...Array.from(known.row("token", layer), (value, token) => row(`layer ${layer}, ${tokenName(scene, token)}`, "token", layer, token, value))];
  }

  look(axis, index) {
    if (!this.known) return;
    const { scene, layer } = this;
    if (axis === "head") this.hover = { axis, layer: Math.floor(index / scene.heads), unit: index % scene.heads };
    else this.hover = axis ? { axis, layer, unit: index } : null;
    this.tell();
    if (axis === "head" || !this.token) return;
    this.tokens.draw({ ...this.token, marked: this.markedToken() });
    this.dots();
  }

  pickHead(index) {
    const { scene } = this;
    this.page.set({ cell: "head", layer: Math.floor(index / scene.heads), head: index % scene.heads });
  }

  pickToken(token) {
    this.page.set({ cell: "token", layer: this.layer, token });
  }

  key(event) {
    if (!this.known || event.ctrlKey || event.metaKey || event.altKey) return;
    const { scene } = this;
    const token = this.hover?.axis === "token" ? this.hover.unit : this.state.token ?? 0;
    const turn = { "[": -1, "]": 1 }[event.key];
    if (event.key.startsWith("Arrow")) this.look("token", neighbour(scene, token, event.key));
    else if (turn) this.page.set({ layer: (this.page.state.layer + turn + scene.layers) % scene.layers });
    else if (event.key === "Enter" || event.key === " ") this.pickToken(token);
    else return;
    event.preventDefault();
  }

  exported() {
    return patchExport(this);
  }
}
