// Latents of a sparse coder of this model: those of this image, all of them, and the answer with one of them changed.
import { brief, choice, node, picture, range } from "./core.js";
import { LatentCard } from "./latent_card.js";
import { latentCard, latentRows } from "./latent_data.js";
import { litImage, sharesOf } from "./latent_images.js";
import { LATENT_SORTS, LatentList } from "./latent_list.js";
import { histogramDrawing } from "./latent_drawing.js";
import { palette, svgString, tableOf } from "./drawing.js";

const WAYS = { "": "as it is", "scale:0": "ablated", "scale:2": "twice as active", "scale:4": "four times as active", steer: "more active everywhere, by" };
const wayOf = (change) => (change?.startsWith("steer:") ? "steer" : change && !(change in WAYS) ? "other" : change || "");
const per = (value) => `${(100 * value).toFixed(1)} %`;

export class Latents {
  static TITLE = "Latents";

  constructor(root, page) {
    Object.assign(this, { root, page });
    this.coder = choice("Sparse coder", [], (coder) => page.set({ coder, step: this.facts.coders.find(({ name }) => name === coder).step, latent: undefined, change: undefined }));
    this.about = node("p", { class: "pz-words" });
    this.own = node("div", { class: "pz-latents", role: "group", "aria-label": "Latents of this image" });
    const ways = Object.entries(WAYS);
    this.way = choice("This latent", ways, (way) => page.set({ change: way === "steer" ? `steer:${this.by.value}` : way || undefined }));
    this.by = node("input", { type: "number", class: "pz-search", step: "any", value: "4", "aria-label": "By how much", onchange: () => page.set({ change: `steer:${Number(this.by.value) || 0}` }) });
    this.answers = node("div", { class: "pz-scroll" });
    this.steer = node("div", { class: "pz-steer" }, node("h2", {}, "Change it in this image"), node("div", { class: "pz-tools" }, this.way.element, this.by), this.answers);
    const image = (i) => Promise.resolve(this.pictures[i]);
    this.card = new LatentCard({ open: (latent) => page.set({ latent }), image });
    this.list = new LatentList({ open: (latent) => page.set({ latent }), image, change: ({ sort, which, find }) => page.set({ ...(sort && { by: sort }), ...(which && { which }), ...(find !== undefined && { find: find || undefined }) }) });
    this.all = node("details", { class: "pz-more", open: true }, node("summary", {}, "All latents"), this.list.element);
    this.some = node("div", {}, node("h2", { class: "pz-own-latents" }, "In this image"), this.own, this.steer, this.card.element, this.all);
    root.append(node("p", { class: "pz-help" }, "A sparse coder writes an activation as a few of many directions, its latents. Bright and framed is where a latent is active. That it is active on something does not say that the model uses it: change it, and look at the answer."),
      node("div", { class: "pz-tools" }, this.coder.element), this.about, this.some);
  }

  async update(state, scene, current) {
    const { source } = this.page;
    const now = await source.ask("latents", state);
    const has = now.facts.coder !== null;
    const place = { model: state.model, rev: state.rev, step: state.step, coder: now.facts.coder };
    const whole = has ? await source.ask("latents", place, { part: 0 }) : null;
    const at = state.latent ?? now.facts.latents[0]?.[0];
    const one = has && at !== undefined ? await source.ask("latents", place, { part: at + 1 }).catch(() => null) : null;
    if (!current()) return;
    Object.assign(this, { state, scene, facts: now.facts, arrays: now.arrays, at });
    this.coder.offer(now.facts.coders.map(({ name, says }) => [name, says]));
    this.coder.element.hidden = !now.facts.coders.length;
    this.coder.select.value = now.facts.coder ?? "";
    this.about.textContent = now.facts.says;
    this.some.hidden = !has;
    if (has) this.draw(latentRows(whole), whole, one);
  }

  draw(data, whole, one) {
    if (whole !== this.whole) {
      this.whole = whole;
      this.pictures = range(whole.arrays.pictures.shape[0]).map((i) => picture(whole.arrays.pictures, i));
      this.list.offer(data.rows, data.facts);
    }
    this.data = data;
    const { by, which, find } = this.state;
    this.list.update({ sort: Object.hasOwn(LATENT_SORTS, by ?? "") ? by : "effect", which: which ?? "alive", find: find ?? "" });
    this.drawOwn();
    this.card.element.hidden = !one;
    if (one) this.card.draw(latentCard(data, data.rows[this.at], one, 0), data.facts);
    this.drawSteered();
  }

  drawOwn() {
    const { latents, prefix, grid } = this.facts;
    const image = picture(this.arrays.image, 0);
    this.own.replaceChildren(...latents.map(([latent, strength], i) => {
      const lit = litImage(`Where latent ${latent} is active`);
      const { shape, values } = this.arrays.maps;
      lit.draw(image, sharesOf(values.subarray(i * shape[1], (i + 1) * shape[1]), prefix, grid), grid);
      const name = this.data.rows[latent].says;
      return node("button", { type: "button", class: "pz-latent", "data-latent": latent, "aria-pressed": latent === this.at, onclick: () => this.page.set({ latent }) },
        lit.element, node("strong", {}, `#${latent}`), node("span", { class: "pz-quiet" }, `${brief(strength)}${name ? `, ${name}` : ""}`));
    }));
  }

  drawSteered() {
    const { change } = this.state;
    const { before, after } = this.facts;
    this.steer.hidden = this.at === undefined || !this.page.source.live;
    const way = wayOf(change);
    this.way.offer([...Object.entries(WAYS), ...(way === "other" ? [["other", change]] : [])]);
    this.way.select.value = way;
    this.by.hidden = way !== "steer";
    if (way === "steer") this.by.value = change.slice(6);
    const rows = (after || before).map(([label, value], i) => (after ? [label, per(before[i][1]), per(value)] : [label, per(value)]));
    this.answers.replaceChildren(tableOf(after ? ["class", "as it is", "with the change"] : ["class", "as it is"], rows));
  }

  chart(latents) {
    const ticks = latents.map(([latent], i) => [i + 0.5, `#${latent}`]);
    return histogramDrawing(latents.map(([, strength]) => strength), { width: 900, height: 260, low: 0, high: latents.length, ticks, colours: palette(this.root), title: "How active each latent is at its strongest token" });
  }

  exported() {
    const { latents } = this.facts;
    const values = Float64Array.from(latents, ([, strength]) => strength);
    return {
      name: "latents", title: this.facts.says, names: { latent: latents.map(([latent]) => String(latent)) },
      numbers: { strength: { axes: ["latent"], shape: [values.length], values } },
      svg: () => svgString(this.chart(latents)), code: this.facts.code || "",
    };
  }
}
