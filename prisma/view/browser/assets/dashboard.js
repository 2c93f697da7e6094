// The dashboard of a sparse coder, from files beside the page: all latents, and one of them, as the address says.
import { packBeside } from "./beside.js";
import { node } from "./core.js";
import { LatentCard } from "./latent_card.js";
import { latentCard, latentRows } from "./latent_data.js";
import { LATENT_SORTS, LatentList } from "./latent_list.js";
import { mark, themeButton } from "./theme.js";
import { tableOf } from "./drawing.js";

const { base } = window.PRISMA_FILES;
const missing = "A file of this dashboard is missing: copy the whole folder, or make it again.";
const FIRST = { sort: "", which: "alive", find: "" };

class Dashboard {
  constructor(root) {
    Object.assign(this, { root, parts: new Map(), images: new Map() });
    this.trouble = node("p", { class: "pz-trouble", role: "alert", hidden: true });
    this.facts = node("div", {});
    const handlers = { open: (latent) => this.go({ latent }), image: (i) => this.image(i) };
    this.list = new LatentList({ ...handlers, change: (values) => this.go(values, true) });
    this.card = new LatentCard(handlers);
    this.back = node("button", { type: "button", onclick: () => this.go({ latent: undefined }) }, "All latents");
    this.before = node("button", { type: "button", onclick: () => this.step(-1) }, "Previous");
    this.after = node("button", { type: "button", onclick: () => this.step(1) }, "Next");
    this.one = node("div", { hidden: true }, node("div", { class: "pz-own" }, this.back, this.before, this.after), this.card.element);
    this.title = node("h1", {});
    root.replaceChildren(node("div", { class: "pz-top-bar" }, mark(), this.title, node("p", {}), node("div", { class: "pz-own" }, themeButton())), this.trouble, this.facts, this.list.element, this.one);
    addEventListener("hashchange", () => this.show());
    this.begin().then(() => this.show(), (error) => {
      this.say(error.message);
      this.ready = true;
    });
  }

  say(text) {
    this.trouble.textContent = text;
    this.trouble.hidden = !text;
  }

  get state() {
    const keys = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    const state = { ...FIRST, sort: this.facts.effects ? "effect" : "density", ...keys };
    if (!Object.hasOwn(LATENT_SORTS, state.sort)) state.sort = "number";
    if (!["all", "alive", "dead", "named"].includes(state.which)) state.which = "alive";
    return state;
  }

  go(values, isSame = false) {
    const next = Object.entries({ ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))), ...values });
    const hash = `#${new URLSearchParams(next.filter(([, value]) => value !== undefined && value !== ""))}`;
    history[isSame ? "replaceState" : "pushState"](null, "", hash);
    return this.show();
  }

  async begin() {
    const found = await packBeside(base, "latents", missing);
    const { facts } = found;
    this.about = facts;
    this.title.textContent = facts.title;
    document.title = facts.title;
    this.facts.effects = facts.effects;
    this.facts.replaceChildren(node("p", { class: "pz-help" }, facts.says), node("details", { class: "pz-more" }, node("summary", {}, "About this coder"), tableOf(["", ""], facts.about)));
    this.data = latentRows(found);
    this.rows = this.data.rows;
    this.list.offer(this.rows, facts);
  }

  step(by) {
    const rows = this.list.chosen;
    const at = rows.findIndex(({ latent }) => latent === Number(this.state.latent));
    return this.go({ latent: rows[(at + by + rows.length) % rows.length]?.latent });
  }

  async show() {
    const { latent, ...list } = this.state;
    const isOne = /^\d+$/.test(latent ?? "") && Number(latent) < this.about.width;
    this.say(latent !== undefined && !isOne ? `The address asks for latent ${String(latent).slice(0, 20)}; this coder has latents from 0 to ${this.about.width - 1}.` : "");
    this.list.element.hidden = this.facts.hidden = isOne;
    this.one.hidden = !isOne;
    this.list.update(list);
    try {
      if (isOne) {
        this.card.draw(await this.read(Number(latent)), this.about);
        scrollTo(0, 0);
      }
    } catch (error) {
      this.say(error.message);
    }
    this.ready = true;
  }

  // Everything of one latent, from the file that it is in.
  async read(latent) {
    const part = Math.floor(latent / this.about.part);
    if (!this.parts.has(part)) this.parts.set(part, packBeside(base, `part-${part}`, missing));
    return latentCard(this.data, this.rows[latent], await this.parts.get(part), latent - part * this.about.part);
  }

  image(i) {
    if (!this.images.has(i)) {
      this.images.set(i, new Promise((resolve, reject) => {
        const image = new Image();
        image.onload = () => resolve(image);
        image.onerror = () => reject(new Error(missing));
        image.src = `images/${i}.${this.about.kind}`;
      }));
    }
    return this.images.get(i);
  }
}

const dashboard = new Dashboard(document.getElementById("prisma"));
window.prisma = { get ready() { return Boolean(dashboard.ready); }, dashboard };
