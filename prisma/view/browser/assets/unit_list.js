// All units of a site: searched, sorted, and opened.
import { brief, choice, node } from "./core.js";
import { searched } from "./latent_list.js";

const UNITS = 24; // that are drawn at once
const UNIT_SORTS = {
  number: ["by number", (a, b) => a.latent - b.latent],
  own: ["largest in this image first", (a, b) => b.own - a.own],
  above: ["furthest above its mean first", (a, b) => b.own - b.mean - (a.own - a.mean)],
  most: ["largest in any image first", (a, b) => b.most - a.most],
  alike: ["images of one class first", (a, b) => b.shared - a.shared],
};

// handlers: open(number), change({by} or {find}).
export class UnitList {
  constructor(handlers) {
    Object.assign(this, { handlers, shown: UNITS, state: {} });
    this.sort = choice("Sort", Object.entries(UNIT_SORTS).map(([key, [text]]) => [key, text]), (by) => handlers.change({ by }));
    this.find = node("input", { type: "search", class: "pz-search", placeholder: "number or class", "aria-label": "Search units", oninput: () => handlers.change({ find: this.find.value || undefined }) });
    this.count = node("p", { class: "pz-words", role: "status" });
    this.rows = node("ol", { class: "pz-top pz-units" });
    this.more = node("button", { type: "button", class: "pz-button", onclick: () => { this.shown += UNITS; this.paint(); } }, "Show more");
    this.element = node("div", {}, node("div", { class: "pz-tools" }, this.find, this.sort.element), this.count, this.rows, this.more);
  }

  // Rows of all units, from arrays [unit]; `isNamed`: a unit is a class of the model.
  offer(arrays, { captions }, { labels }, isNamed) {
    const of = Object.fromEntries(["own", "most", "mean", "common", "shared"].map((name) => [name, arrays[`all.${name}`].values]));
    this.all = Array.from(of.own, (own, latent) => {
      const common = of.common[latent] < 0 ? "" : labels[of.common[latent]] ?? `class ${of.common[latent]}`;
      const says = [isNamed ? labels[latent] : "", common && `${of.shared[latent]} of ${captions.length} images: ${common}`].filter(Boolean).join(", ");
      return { latent, own, most: of.most[latent], mean: of.mean[latent], shared: of.shared[latent], says, words: says.toLowerCase() };
    });
  }

  // state: {by, find, at}, `at` the unit that is looked at.
  update(state) {
    const isOther = state.find !== this.state.find || state.by !== this.state.by;
    Object.assign(this, { state, shown: isOther ? UNITS : this.shown });
    this.sort.select.value = this.by;
    if (this.find.value !== state.find) this.find.value = state.find;
    this.paint();
  }

  get by() {
    return Object.hasOwn(UNIT_SORTS, this.state.by ?? "") ? this.state.by : "own"; // the key is also that of latents
  }

  get chosen() {
    return [...searched(this.all, this.state.find)].sort((a, b) => UNIT_SORTS[this.by][1](a, b) || a.latent - b.latent);
  }

  // The unit that stands `by` places from one in the list; undefined at its ends.
  beside(number, by) {
    const { chosen } = this;
    const at = chosen.findIndex(({ latent }) => latent === number);
    return chosen[at < 0 ? 0 : at + by]?.latent;
  }

  paint() {
    const { chosen } = this;
    this.count.textContent = `${chosen.length.toLocaleString("en")} of ${this.all.length.toLocaleString("en")} units; the number is that of this image.`;
    const most = Math.max(...this.all.map(({ own }) => Math.abs(own)), 1e-9);
    this.rows.replaceChildren(...chosen.slice(0, this.shown).map(({ latent, own, says }) => node("li", { class: own < 0 ? "pz-negative" : null },
      node("button", { type: "button", "data-unit": latent, "aria-pressed": latent === this.state.at, onclick: () => this.handlers.open(latent) },
        node("span", { class: "pz-fill", style: `transform:scaleX(${Math.abs(own) / most})` }), node("span", { class: "pz-name" }, `#${latent}${says ? ` · ${says}` : ""}`), node("span", { class: "pz-value" }, brief(own))))));
    this.more.hidden = chosen.length <= this.shown;
  }
}
