// Naming heads: which few classes, or prompts of a CLIP, span what each head writes to the output, beside random directions.
import { brief, choice, node } from "./core.js";
import { Numbers } from "./pack.js";
import { MOST_NAMES } from "./state.js";

const HEADS_LISTED = 16;
const NAMED_BY = { names: "that the names fit best", size: "that vary most" };
const perCent = (value) => (Number.isNaN(value) ? "" : `${(100 * value).toFixed(0)} %`);

export class Naming {
  constructor(page) {
    Object.assign(this, { page, found: null });
    this.span = choice("Names of each head", [], (span) => page.set({ span: Number(span) || undefined }));
    this.by = choice("Heads", Object.entries(NAMED_BY), (by) => page.set({ by }));
    this.words = node("p", { class: "pz-words", role: "status" });
    this.body = node("tbody", {});
    const columns = ["head", "names, in order", "by names", "by chance", "varies by"];
    this.table = node("div", { class: "pz-scroll", tabindex: 0, role: "group", "aria-label": "Names of heads" }, node("table", { class: "pz-classes pz-naming" }, node("thead", {}, node("tr", {}, ...columns.map((text) => node("th", { scope: "col" }, text)))), this.body));
    this.element = node("div", { class: "pz-detail", role: "group", "aria-label": "Naming heads" },
      node("div", { class: "pz-tools" }, node("h2", {}, "What heads write (TextSpan)"), this.span.element, this.by.element),
      node("p", { class: "pz-help" }, "Over many images, what a head writes to the output directly varies along some directions. Which few of the model's own names (its classes, or the prompts of a CLIP) span most of it? The first name is that along which the head varies most. Read names only where they explain far more of how it varies (by names) than as many random directions do (by chance). They say what a head's writing goes along with in these images, not what it is needed for: ablate it in Patching."),
      this.words, this.table);
  }

  async update(state, scene, current) {
    const { source } = this.page;
    this.element.hidden = !source.live;
    if (!source.live) return;
    const counts = Array.from({ length: Math.min(MOST_NAMES, scene.labels.length) }, (_, i) => [i + 1, i + 1]);
    this.span.offer([["", "none"], ...counts]);
    this.span.select.value = state.span ?? "";
    this.by.select.value = Object.hasOwn(NAMED_BY, state.by ?? "") ? state.by : "names";
    const asked = state.span !== undefined;
    [this.table.hidden, this.words.hidden, this.by.element.hidden] = [true, !asked, !asked];
    this.found = null;
    if (!asked) return;
    this.words.textContent = "What heads write is computed for many images: a moment.";
    const found = await source.ask("decompose", { ...state, img: undefined, target: undefined, against: undefined }, { part: 0, span: state.span }).catch((error) => ({ error }));
    if (!current()) return;
    if (found.error) this.words.textContent = found.error.message;
    else this.draw(found);
  }

  draw({ facts, arrays }) {
    const [explained, random, size] = ["explained", "random", "size"].map((name) => new Numbers(arrays[name]));
    const [layers, heads] = explained.shape;
    const rows = Array.from({ length: layers * heads }, (_, i) => {
      const at = [Math.floor(i / heads), i % heads];
      return { at, names: facts.names[at[0]][at[1]], explained: explained.at(...at), random: random.at(...at), size: size.at(...at) };
    });
    const rank = { names: (row) => (Number.isNaN(row.explained) ? -1 : row.explained - row.random), size: (row) => row.size }[this.by.select.value];
    rows.sort((a, b) => rank(b) - rank(a));
    Object.assign(this, { found: { facts, arrays } });
    this.table.hidden = false;
    const fill = (value) => node("td", {}, node("span", { class: "pz-fill", style: `width:${Number.isNaN(value) ? 0 : 100 * value}%` }), node("span", { class: "pz-value" }, perCent(value)));
    this.body.replaceChildren(...rows.slice(0, HEADS_LISTED).map((row) => node("tr", {},
      node("th", { scope: "row" }, `layer ${row.at[0]}, head ${row.at[1]}`), node("td", {}, row.names.join(" · ")), fill(row.explained), fill(row.random), node("td", {}, brief(row.size)))));
    const more = rows.length > HEADS_LISTED ? ` The first ${HEADS_LISTED} of ${rows.length} heads.` : "";
    this.words.textContent = `Over ${facts.read} images, with ${facts.state.span} of the model's ${facts.what} for each head. Without what heads write directly (but for its mean) the output has cosine ${brief(facts.similarity[0])} with the model's own, with these names alone ${brief(facts.similarity[1])}.${more}`;
  }

  // What it adds to the files of the bars.
  exported() {
    if (!this.found) return null;
    const { facts, arrays } = this.found;
    const numbers = Object.entries(arrays).map(([name, { shape, values }]) => [`span_${name}`, { axes: ["layer", "head"], shape: [...shape], values: Float32Array.from(values) }]);
    return { numbers: Object.fromEntries(numbers), code: facts.more };
  }
}
