// The page: its head (model, training step, image), its tabs, and the one state that decides everything that it shows.
import { Address } from "./address.js";
import { Compare } from "./compare.js";
import { Bar } from "./bar.js";
import { Attention } from "./attention.js";
import { Decompose } from "./decompose.js";
import { exportTools } from "./export.js";
import { Head } from "./head.js";
import { Files, Server } from "./source.js";
import { Latents } from "./latents.js";
import { Lens } from "./lens.js";
import { Patching } from "./patching.js";
import { Steering } from "./steering.js";
import { Training } from "./training.js";
import { Units } from "./units.js";
import { nearestFigure, nearestModel } from "./nearest.js";
import { fromAddress, valid, VIEWS } from "./state.js";
import { node } from "./core.js";

const FIGURES = { attention: Attention, lens: Lens, patching: Patching, training: Training, decompose: Decompose, steering: Steering, latents: Latents, units: Units };
// A change of these is a step that the browser's Back undoes; others only change the present address.
const STEPS = ["model", "view", "img", "corrupt", "model2", "img2"];

class Page {
  constructor(root, source) {
    Object.assign(this, { root, source, turn: 0, ready: false, figures: {}, address: new Address(!source.live) });
    Object.assign(this, fromAddress(this.address.read()));
    this.trouble = node("p", { class: "pz-trouble", role: "alert", hidden: true });
    this.head = new Head(this);
    this.tabs = node("div", { class: "pz-tabs", role: "tablist", "aria-label": "Views" });
    this.panel = node("section", { class: "pz-panel", role: "tabpanel", id: "pz-figure", tabindex: -1 });
    VIEWS.forEach((name) => this.tabs.append(this.tab(name)));
    this.compare = new Compare(this, FIGURES);
    this.bar = new Bar(this);
    const skip = (event) => { event.preventDefault(); this.panel.focus(); };
    this.columns = node("div", { class: "pz-both" },
      node("section", { class: "pz-side", "aria-label": "First" }, this.head.element, this.trouble, this.panel), this.compare.element);
    root.replaceChildren(node("a", { class: "pz-skip", href: "#pz-figure", onclick: skip }, "Skip to the figure"), this.bar.element, this.tabs, this.columns);
    window.addEventListener("popstate", () => this.read());
    this.show(this.state, true);
  }

  // The browser's Back and Forward, or an address that was changed by hand.
  read() {
    const { state, mistakes } = fromAddress(this.address.read());
    this.mistakes = mistakes;
    return this.show(state, true);
  }

  tab(name) {
    const onkeydown = (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      const next = VIEWS[(VIEWS.indexOf(name) + move + VIEWS.length) % VIEWS.length];
      this.set({ view: next });
      this.tabs.children[VIEWS.indexOf(next)].focus();
    };
    return node("button", {
      type: "button", role: "tab", id: `pz-tab-${name}`, "aria-controls": "pz-figure", onkeydown, onclick: () => this.set({ view: name }),
    }, FIGURES[name].TITLE);
  }

  // Changes the state, and with it the address and the figure. `undefined` removes a key.
  set(values) {
    const next = { ...this.state, ...values };
    const isStep = STEPS.some((key) => key in values && values[key] !== this.state[key]);
    this.address.write(next, isStep);
    return this.show(next);
  }

  // What the server filled in belongs to the state, unless the visitor has chosen something else meanwhile.
  fill(values) {
    const known = Object.fromEntries(Object.entries(values || {}).filter(([, value]) => value !== null && value !== undefined));
    this.state = { ...this.state, ...known };
    this.address.write(this.state);
  }

  say(sentences) {
    this.trouble.textContent = sentences.join(" ");
    this.trouble.hidden = !sentences.length;
  }

  // Draws a state. What does not exist is replaced by its default, and said; what a source does not have, if a link asks.
  async show(state, isLink = false) {
    Object.assign(this, { state, ready: false, turn: this.turn + 1 });
    const mine = this.turn;
    const current = () => mine === this.turn;
    const said = this.mistakes.splice(0);
    try {
      const { model, state: named } = await nearestModel(this.source, state, said);
      if (!current()) return;
      this.model = model.facts;
      const checked = valid(named, model.facts);
      const near = await this.source.nearest(checked.state, model.facts);
      if (!current()) return;
      said.push(...checked.mistakes, ...(isLink ? near.mistakes : []));
      await nearestFigure(near.state, said, (some) => this.draw(some, model, current));
    } catch (error) {
      if (!current()) return;
      said.push(error.message);
      this.panel.classList.add("pz-stale"); // what is still seen is of another state
    }
    if (!current()) return;
    this.say(said);
    this.done();
  }

  async draw(state, model, current) {
    if (!current()) return;
    this.state = state;
    this.fill({ model: model.facts.name, rev: model.facts.rev, step: state.step ?? model.facts.steps.at(-1) });
    this.mark();
    const head = this.head.update(model, this.state, current);
    await Promise.all([head, this.figure(this.state.view).update(this.state, this.model, current)]);
    if (current()) await this.compare.update(current); // second, because it is asked of the classes that the first is
  }

  done() {
    this.ready = true;
    document.documentElement.dataset.prismaFigureMs ??= String(Math.round(performance.now()));
  }

  mark() {
    this.say([]);
    this.panel.classList.remove("pz-stale");
    this.columns.classList.toggle("pz-two", this.compare.open);
    this.bar.update();
    VIEWS.forEach((name, i) => {
      const chosen = name === this.state.view;
      this.tabs.children[i].setAttribute("aria-selected", chosen);
      this.tabs.children[i].tabIndex = chosen ? 0 : -1;
      if (this.figures[name]) this.figures[name].element.hidden = !chosen;
    });
    this.panel.setAttribute("aria-labelledby", `pz-tab-${this.state.view}`);
  }

  // The figure of a view, made when it is looked at first.
  figure(name) {
    if (!this.figures[name]) {
      const element = node("div", { class: "pz-view", hidden: true });
      this.figures[name] = new FIGURES[name](element, this);
      this.figures[name].element = element;
      element.append(exportTools(this, this.figures[name]));
      this.panel.append(element);
    }
    this.figures[name].element.hidden = false;
    return this.figures[name];
  }
}

// Finds the element that the page is in, which Gradio makes later than the script runs.
function mount() {
  const root = document.getElementById("prisma");
  if (!root || root.dataset.mounted) return Boolean(root);
  root.dataset.mounted = "1";
  const source = window.PRISMA_FILES ? new Files(window.PRISMA_FILES) : new Server("prisma/");
  const page = new Page(root, source);
  window.prisma = { get state() { return Object.fromEntries(Object.entries(page.state).filter(([, value]) => value !== undefined)); }, get ready() { return page.ready; }, page };
  return true;
}
if (!mount()) {
  const watcher = new MutationObserver(() => mount() && watcher.disconnect());
  watcher.observe(document.documentElement, { childList: true, subtree: true });
}
