// What is looked at: which model, which training step, which image, and what the model answers. It belongs to a page or
// to one side of a comparison, `place`: {state, set, source}.
import { choice, node, picture } from "./core.js";
import { ImageTools } from "./image_tools.js";

const share = (value) => `${(100 * value).toFixed(1)} %`;
// What is said of one model and image, and means nothing for another.
export const OF_MODEL = { rev: undefined, step: undefined, img: "0", token: undefined, layer: 0, head: 0, site: "resid_pre", prompts: undefined, ablate: undefined, coder: undefined, latent: undefined, change: undefined, units: undefined, number: undefined, cell: undefined, sort: undefined, steer: undefined, where: undefined, dose: undefined, after: undefined, moved: undefined, span: undefined };
export const OF_IMAGE = { corrupt: undefined, target: undefined, against: undefined, every: undefined, classes: undefined, circuit: undefined, paths: undefined };

export class Head {
  constructor(place) {
    this.place = place;
    this.models = choice("Model", [], (name) => place.set({ ...OF_MODEL, ...OF_IMAGE, model: name }));
    this.facts = node("span", { class: "pz-quiet" });
    this.step = node("output", { class: "pz-step" });
    const oninput = () => place.set({ step: this.steps[Number(this.slider.value)] });
    this.slider = node("input", { type: "range", min: 0, step: 1, class: "pz-timeline", "aria-label": "Training step", oninput });
    this.ends = node("div", { class: "pz-ends", "aria-hidden": "true" });
    this.timeline = node("div", { class: "pz-steps" }, node("span", { class: "pz-title" }, "Training step"), this.step, this.slider, this.ends);
    this.examples = node("div", { class: "pz-examples", role: "group", "aria-label": "Example images. Arrow keys choose.", onkeydown: (event) => this.key(event) });
    this.tools = new ImageTools(place);
    this.large = node("div", { class: "pz-image" });
    this.caption = node("p", { class: "pz-caption" });
    this.top = node("ol", { class: "pz-answers", "aria-label": "What the model answers" });
    this.element = node("header", { class: "pz-head" },
      node("div", { class: "pz-choose" }, node("div", { class: "pz-model" }, this.models.element, this.facts), this.timeline, this.examples, this.tools.element),
      node("div", { class: "pz-shown" }, this.large, node("div", {}, this.caption, this.top)));
    place.source.listed().then(({ models }) => {
      this.models.offer(models.map((name) => [name, name]));
      if (this.name) this.models.select.value = this.name;
    });
  }

  update({ facts, arrays }, state, current) {
    if (this.name !== facts.name || this.rev !== facts.rev) this.changeModel(facts, arrays);
    this.steps = facts.steps;
    this.timeline.hidden = facts.steps.length < 2 || state.view === "training"; // which has a slider of its own
    this.models.select.value = facts.name;
    this.slider.value = facts.steps.indexOf(state.step);
    this.step.textContent = (state.step ?? 0).toLocaleString("en");
    this.slider.setAttribute("aria-valuetext", `step ${this.step.textContent}`);
    [...this.examples.children].forEach((button) => {
      const chosen = button.dataset.img === state.img;
      button.setAttribute("aria-pressed", chosen);
      button.tabIndex = chosen || (button === this.examples.firstChild && !facts.examples.some(({ img }) => img === state.img)) ? 0 : -1;
    });
    return this.answer(state, facts, current);
  }

  changeModel(facts, arrays) {
    Object.assign(this, { name: facts.name, rev: facts.rev });
    const accuracy = facts.accuracy ? `, ${share(facts.accuracy.value)} of ${facts.accuracy.n.toLocaleString("en")} test images right` : facts.result ? `, ${facts.result.name} ${facts.result.value.toFixed(3)} on ${facts.result.n.toLocaleString("en")} images` : "";
    this.facts.textContent = `${facts.layers} layers of ${facts.heads} heads, ${facts.parameters.toLocaleString("en")} parameters${accuracy}`;
    this.slider.max = facts.steps.length - 1;
    const marks = [...new Set([0, 0.25, 0.5, 0.75, 1].map((part) => Math.round(part * (facts.steps.length - 1))))];
    this.ends.replaceChildren(...marks.map((i) => node("span", {}, facts.steps[i].toLocaleString("en"))));
    this.examples.replaceChildren(...facts.examples.map(({ caption, img }, i) => {
      const thumb = picture(arrays.thumbnails, i);
      thumb.setAttribute("aria-hidden", "true");
      return node("button", { type: "button", class: "pz-example", title: caption, "aria-label": caption, "data-img": img, onclick: () => this.place.set({ ...OF_IMAGE, img }) }, thumb);
    }));
    this.tools.update(facts);
  }

  // One tab stop for all examples: arrow keys move.
  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 }[event.key];
    if (!move) return;
    event.preventDefault();
    const all = [...this.examples.children];
    const next = all[Math.max(0, Math.min(all.length - 1, all.indexOf(event.target.closest("button")) + move))];
    next.focus();
    next.click();
  }

  async answer(state, model, current) {
    const { facts, arrays } = await this.place.source.ask("answer", state);
    if (!current()) return;
    const image = picture(arrays.image, 0);
    image.setAttribute("role", "img");
    image.setAttribute("aria-label", facts.caption);
    image.classList.toggle("pz-smooth", image.width > 64);
    this.large.replaceChildren(image);
    this.caption.textContent = facts.diverged ? `${facts.caption}. This checkpoint has diverged: its answer is not a number.` : facts.caption;
    this.top.replaceChildren(...facts.top.map(({ label, probability }) => node("li", { class: label === facts.label ? "pz-right" : null },
      node("span", { class: "pz-fill", style: `width:${100 * probability}%` }),
      node("span", { class: "pz-name" }, label), node("span", { class: "pz-value" }, share(probability)))));
  }
}
