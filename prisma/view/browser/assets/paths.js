// The paths of a pair, by both forms of path patching: MLPs on the way frozen, or computed anew.
import { choice, node, signed } from "./core.js";
import { FORM_COLOURS, pathDrawing } from "./path_drawing.js";
import { palette, tableOf } from "./drawing.js";

const [PATHS_DRAWN, PATHS_LISTED] = [12, 40];
const LEAST_SIGN = 0.01; // of the largest change: two signs differ where both changes are at least so large
const PATH_CHOICES = [["", "none"], ["strongest", "the strongest"], ["differing", "where the forms differ most"], ["signs", "where their signs differ"]];
const FORM_WORDS = { frozen: "MLPs on the way frozen: one edge", recomputed: "MLPs on the way computed anew (Wang et al.)" };
const RANKS = { // which come first, and which are left out
  strongest: ({ values }) => Math.max(...values.map(Math.abs)),
  differing: ({ values }) => Math.abs(values[0] - values[1]),
  signs: ({ values, differs }) => (differs ? Math.min(...values.map(Math.abs)) : 0),
};

export class Paths {
  constructor(page) {
    Object.assign(this, { page, found: null });
    this.which = choice("Show", PATH_CHOICES, (paths) => page.set({ paths: paths || undefined }));
    this.words = node("p", { class: "pz-words", role: "status" });
    this.holder = node("div", { class: "pz-drawing pz-paths" });
    this.legend = node("ul", { class: "pz-legend" });
    this.table = node("div", {});
    this.more = node("details", { class: "pz-more", ontoggle: () => this.tabulate() }, node("summary", {}, "Show the paths as table"), this.table);
    this.shown = node("div", {}, node("figure", { class: "pz-figure" }, node("figcaption", {}, "Change of the metric when one path carries what it carries on the other image"), this.holder, this.legend), this.more);
    this.element = node("div", { class: "pz-detail", role: "group", "aria-label": "Paths" },
      node("div", { class: "pz-tools" }, node("h2", {}, "Paths"), this.which.element),
      node("p", { class: "pz-help" }, "Along which connection does the difference travel? One receiver (q, k or v of a head: a1.h2.k; an MLP: m0; the logits) reads what one sender writes on the other image, exactly. With frozen MLPs that is one edge; computed anew, the path leads through the MLPs between them too, and may even change its sign. It is of this pair alone, and effects of paths do not add up."),
      this.words, this.shown);
    new ResizeObserver(() => this.found && this.holder.clientWidth && this.holder.clientWidth !== this.width && this.paint()).observe(this.holder);
  }

  // Comes after the rest: each path is a run.
  async update(state, isQuick, current) {
    this.element.hidden = !this.page.source.live || !(isQuick || state.paths);
    const asked = Boolean(state.paths) && this.page.source.live;
    this.which.select.value = state.paths ?? "";
    [this.shown.hidden, this.words.hidden] = [true, !asked];
    this.found = null;
    if (!asked) return;
    this.words.textContent = "Each path is a run: a few seconds.";
    const found = await this.page.source.ask("patching", state, { part: 5 }).catch((error) => ({ error }));
    if (!current()) return;
    if (found.error) this.words.textContent = found.error.message;
    else this.draw(found, state.paths);
  }

  draw({ facts, arrays }, which) {
    const { senders, receivers } = facts;
    const { values } = arrays.changes;
    const half = values.length / 2;
    const most = values.reduce((size, value) => Math.max(size, Math.abs(value)), 0);
    const all = Array.from({ length: half }, (_, i) => {
      const pair = [values[i], values[half + i]];
      const differs = pair[0] * pair[1] < 0 && Math.min(...pair.map(Math.abs)) >= LEAST_SIGN * most;
      return { name: `${senders[Math.floor(i / receivers.length)]} → ${receivers[i % receivers.length]}`, values: pair, differs };
    });
    const rank = RANKS[which];
    this.rows = all.filter((row) => rank(row) > 0).sort((a, b) => rank(b) - rank(a)).slice(0, PATHS_LISTED);
    Object.assign(this, { found: { facts, arrays }, differing: all.filter(({ differs }) => differs).length });
    this.shown.hidden = !this.rows.length;
    const signs = `${this.differing} of ${facts.count.toLocaleString("en")} paths have another sign when MLPs are computed anew (marked ±; of changes of at least ${100 * LEAST_SIGN} % of the largest).`;
    this.words.textContent = facts.mlps ? signs : "This model has no MLPs, so both forms are the same.";
    this.legend.replaceChildren(...facts.forms.map((form, i) => node("li", {}, node("span", { class: "pz-key", style: `background:${FORM_COLOURS[i]};height:9px`, "aria-hidden": "true" }), node("span", {}, FORM_WORDS[form]))));
    this.paint();
    this.tabulate();
  }

  svg(width) {
    return pathDrawing(this.rows.slice(0, PATHS_DRAWN), { width, colours: palette(this.element), title: "Paths by both forms of path patching; the table has the numbers", below: "change of the metric" });
  }

  paint() {
    this.width = this.holder.clientWidth || this.width || 640;
    this.holder.replaceChildren(this.svg(this.width));
  }

  tabulate() {
    if (!this.more.open || !this.found) return;
    const rows = this.rows.map(({ name, values, differs }) => [name, ...values.map(signed), differs ? "±" : ""]);
    this.table.replaceChildren(node("div", { class: "pz-scroll", tabindex: 0, role: "group", "aria-label": "Numbers of the paths" }, tableOf(["path", "MLPs frozen", "MLPs computed anew", "signs differ"], rows)));
  }

  // What it adds to the files of patching.
  exported() {
    if (!this.found) return null;
    const { facts, arrays } = this.found;
    const { shape, values } = arrays.changes;
    return { numbers: { paths: { axes: ["form", "sender", "receiver"], shape: [...shape], values: Float32Array.from(values) } }, names: { form: facts.forms, sender: facts.senders, receiver: facts.receivers }, code: facts.more, svg: this.svg(640) };
  }
}
