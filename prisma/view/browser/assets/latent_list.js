// All latents of a coder: searched, sorted, and each with the image in which it is most active.
import { brief, choice, node } from "./core.js";
import { histogramDrawing } from "./latent_drawing.js";
import { litImage, sharesOf } from "./latent_images.js";
import { palette } from "./drawing.js";

const PAGE = 48; // latents that are drawn at once
export const LATENT_SORTS = {
  number: ["by number", (a, b) => a.latent - b.latent],
  effect: ["largest effect first", (a, b) => b.effect - a.effect],
  density: ["most often active first", (a, b) => b.density - a.density],
  rare: ["most rarely active first", (a, b) => (a.density || 2) - (b.density || 2)],
  strength: ["strongest first", (a, b) => b.strength - a.strength],
  dead: ["dead first", (a, b) => (a.density > 0) - (b.density > 0)],
  name: ["by name", (a, b) => (a.name || "\uffff").localeCompare(b.name || "\uffff")],
};
const WHICH = { all: "all", alive: "active ones", dead: "dead ones", named: "with a name" };

const digits = (percents) => (percents >= 10 ? percents.toFixed(0) : String(Number(percents.toPrecision(2))));
export const percent = (share) => (share === 0 ? "0 %" : share < 0.0001 ? "< 0.01 %" : `${digits(100 * share)} %`);

// Latents that a search finds: a number (`12` or `#12`), or words in names and in the classes that they change.
export function searched(rows, words) {
  const text = words.trim().toLowerCase();
  if (!text) return rows;
  const number = text.match(/^#?(\d+)$/);
  return rows.filter((row) => (number && row.latent === Number(number[1])) || row.words.includes(text));
}

// handlers: change({sort, which, find}), open(latent); image(i) -> a promise of something that can be drawn.
export class LatentList {
  constructor(handlers) {
    Object.assign(this, { handlers, shown: PAGE, state: { sort: "effect", which: "alive", find: "" } });
    const pairs = (table, text) => Object.entries(table).map(([key, value]) => [key, text(value)]);
    this.sort = choice("Sort", pairs(LATENT_SORTS, ([text]) => text), (sort) => handlers.change({ sort }));
    this.which = choice("Show", pairs(WHICH, (text) => text), (which) => handlers.change({ which }));
    this.find = node("input", { type: "search", class: "pz-search", placeholder: "number, name or class", "aria-label": "Search latents", oninput: () => handlers.change({ find: this.find.value }) });
    this.count = node("p", { class: "pz-words", role: "status" });
    this.holder = node("div", { class: "pz-drawing pz-density" });
    this.cards = node("div", { class: "pz-latents" });
    this.more = node("button", { type: "button", class: "pz-button", onclick: () => { this.shown += PAGE; this.paint(); } }, "Show more");
    this.element = node("div", {}, this.holder, node("div", { class: "pz-tools" }, this.find, this.sort.element, this.which.element), this.count, this.cards, this.more);
    new ResizeObserver(() => this.rows && this.holder.clientWidth && this.holder.clientWidth !== this.width && this.chart()).observe(this.holder);
  }

  // rows: [{latent, name, density, effect, strength, says, words, image, bytes}]; effect is null where it was not measured.
  offer(rows, { prefix, grid }) {
    Object.assign(this, { rows, prefix, grid });
    this.chart();
  }

  update(state) {
    const isOther = JSON.stringify(state) !== JSON.stringify(this.state);
    Object.assign(this, { state, shown: isOther ? PAGE : this.shown });
    this.sort.select.value = state.sort;
    this.which.select.value = state.which;
    if (this.find.value !== state.find) this.find.value = state.find;
    this.paint();
  }

  // The latents that are chosen, in order.
  get chosen() {
    const { sort, which, find } = this.state;
    const is = { all: () => true, alive: (row) => row.density > 0, dead: (row) => row.density === 0, named: (row) => row.name }[which];
    return searched(this.rows.filter(is), find).sort((a, b) => LATENT_SORTS[sort][1](a, b) || a.latent - b.latent);
  }

  chart() {
    this.width = this.holder.clientWidth || 720;
    const alive = this.rows.map(({ density }) => density).filter((density) => density > 0).map(Math.log10);
    const low = Math.min(-1, Math.floor(alive.reduce((least, value) => Math.min(least, value), 0)));
    const bins = Array(36).fill(0);
    alive.forEach((value) => { bins[Math.min(35, Math.floor(((value - low) / -low) * 36))] += 1; });
    const ticks = Array.from({ length: -low + 1 }, (_, i) => [low + i, `${Number((100 * 10 ** (low + i)).toPrecision(2))} %`]);
    this.holder.replaceChildren(histogramDrawing(bins, { width: Math.min(this.width, 620), height: 110, low, high: 0, ticks, colours: palette(this.holder),
      title: "How many latents are active on which share of the tokens" }));
  }

  paint() {
    const rows = this.chosen;
    const dead = this.rows.filter(({ density }) => density === 0).length;
    this.count.textContent = `${rows.length.toLocaleString("en")} of ${this.rows.length.toLocaleString("en")} latents; ${dead.toLocaleString("en")} dead: active nowhere in these images.`;
    this.cards.replaceChildren(...rows.slice(0, this.shown).map((row) => this.card(row)));
    this.more.hidden = rows.length <= this.shown;
  }

  card(row) {
    const lit = litImage(`Strongest image of latent ${row.latent}`);
    const facts = row.density === 0 ? "dead" : `${percent(row.density)} of tokens${row.effect === null ? "" : `, effect ${brief(row.effect)}`}`;
    if (row.image >= 0) this.handlers.image(row.image).then((image) => lit.draw(image, sharesOf(row.bytes, this.prefix, this.grid), this.grid), () => {});
    return node("button", { type: "button", class: "pz-latent", "data-latent": row.latent, onclick: () => this.handlers.open(row.latent) },
      row.image >= 0 ? lit.element : node("span", { class: "pz-lit pz-none" }, "no image"),
      node("strong", {}, `#${row.latent}`, row.name ? ` ${row.name}` : ""), node("span", { class: "pz-quiet" }, facts), node("span", { class: "pz-quiet" }, row.says));
  }
}
