// A second model, image or training step beside the first: the same figure of the same layer, head and token.
import { Head } from "./head.js";
import { node } from "./core.js";
import { nearestFigure, nearestModel } from "./nearest.js";
import { ofView, valid } from "./state.js";

const SECOND = { model: "model2", rev: "rev2", img: "img2", step: "step2" };

export class Compare {
  constructor(page, figures) {
    Object.assign(this, { page, classes: figures, figures: {}, filled: {} });
    this.source = page.source;
    this.head = new Head(this);
    this.panel = node("div", {});
    this.words = node("p", { class: "pz-trouble", role: "alert", hidden: true });
    this.element = node("section", { class: "pz-side", "aria-label": "Second", hidden: true }, this.head.element, this.words, this.panel);
  }

  get open() {
    return Object.values(SECOND).some((key) => this.page.state[key] !== undefined);
  }

  // The state of this side: the page's, with its own model, image and training step, and what follows from these.
  get state() {
    return { ...this.asked, ...this.filled };
  }

  get asked() {
    const { state } = this.page;
    const own = { ...state, rev: state.model2 === undefined ? state.rev : state.rev2, step: state.model2 === undefined ? state.step : undefined };
    for (const [key, mine] of Object.entries(SECOND)) if (state[mine] !== undefined) own[key] = state[mine];
    if (state.img2 !== undefined || state.model2 !== undefined) Object.assign(own, { corrupt: undefined });
    return ofView(own); // this side says nothing of what it does not show
  }

  set(values) {
    const mapped = Object.fromEntries(Object.entries(values).filter(([key]) => key in SECOND || !("model" in values)).map(([key, value]) => [SECOND[key] || key, value]));
    return this.page.set(mapped);
  }

  fill(values) {
    Object.assign(this.filled, Object.fromEntries(Object.entries(values || {}).filter(([, value]) => value !== null && value !== undefined)));
    const own = Object.fromEntries(Object.entries(values || {}).filter(([key]) => ["model", "rev", "step"].includes(key) && this.page.state[SECOND[key]] === undefined && this.page.state.model2 !== undefined).map(([key, value]) => [SECOND[key], value]));
    if (Object.keys(own).length) this.page.fill(own);
  }

  // Begins with the image that is shown, for the visitor to choose another one; of a model that has a counterpart, as an
  // edited model has, with that one on the same image.
  toggle() {
    const { state, model } = this.page;
    const none = Object.fromEntries(Object.values(SECOND).map((key) => [key, undefined]));
    const second = model?.beside ? { model2: model.beside } : { img2: state.img };
    return this.page.set(this.open ? none : { ...none, ...second });
  }

  async update(current) {
    this.element.hidden = !this.open;
    this.filled = {};
    if (!this.open) return;
    const said = [];
    try {
      const { model, state: named } = await nearestModel(this.source, this.asked, said);
      if (!current()) return;
      this.model = model.facts;
      const checked = valid(named, model.facts);
      const near = await this.source.nearest(checked.state, model.facts);
      if (!current()) return;
      said.push(...checked.mistakes, ...near.mistakes);
      await nearestFigure(near.state, said, async (state) => {
        if (!current()) return;
        const { asked } = this;
        this.filled = Object.fromEntries(Object.entries(state).filter(([key, value]) => value !== asked[key]));
        this.fill({ model: model.facts.name, rev: model.facts.rev, step: state.step ?? model.facts.steps.at(-1) });
        const head = this.head.update(model, this.state, current);
        await Promise.all([head, this.figure(state.view).update(this.state, this.model, current)]);
      });
    } catch (error) {
      said.push(error.message);
    }
    if (!current()) return;
    this.words.textContent = said.join(" ");
    this.words.hidden = !said.length;
  }

  figure(name) {
    if (!this.figures[name]) {
      const element = node("div", { class: "pz-view" });
      this.figures[name] = new this.classes[name](element, this);
      this.figures[name].element = element;
      this.panel.append(element);
    }
    for (const [other, figure] of Object.entries(this.figures)) figure.element.hidden = other !== name;
    return this.figures[name];
  }
}
