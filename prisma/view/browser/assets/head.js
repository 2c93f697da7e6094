// The head of the page: which model, which training step, which image, and what the model answers.
import { choice, node, option, picture } from "./core.js";

const percent = (value) => `${(100 * value).toFixed(1)} %`;

export class Head {
  constructor(page) {
    this.page = page;
    this.models = choice("Model", [], (name) => page.set({ model: name, rev: undefined, step: undefined, img: "0", corrupt: undefined, target: undefined, against: undefined, token: undefined, layer: 0, head: 0, site: "resid_pre", prompts: undefined }));
    this.models.select.id = "pz-model";
    this.step = node("output", { class: "pz-step" });
    this.slider = node("input", { type: "range", min: 0, step: 1, class: "pz-timeline", id: "pz-step", "aria-label": "Training step", oninput: () => page.set({ step: this.steps[Number(this.slider.value)] }) });
    this.timeline = node("div", { class: "pz-steps" }, node("span", { class: "pz-title" }, "Training step"), this.step, this.slider);
    this.large = node("div", { class: "pz-image" });
    this.caption = node("p", { class: "pz-caption" });
    this.top = node("ol", { class: "pz-answers", "aria-label": "What the model answers" });
    this.examples = node("div", { class: "pz-examples", role: "group", "aria-label": "Examples" });
    this.element = node("header", { class: "pz-head" },
      node("div", { class: "pz-choose" }, this.models.element, this.timeline, this.examples),
      node("div", { class: "pz-shown" }, this.large, node("div", {}, this.caption, this.top)));
    page.source.models().then((names) => this.models.offer(names.map((name) => [name, name])));
  }

  update({ facts, arrays }, state, current) {
    if (this.name !== facts.name || this.rev !== facts.rev) this.changeModel(facts, arrays);
    this.steps = facts.steps;
    this.models.select.value = facts.name;
    this.timeline.hidden = facts.steps.length < 2;
    this.slider.max = facts.steps.length - 1;
    this.slider.value = facts.steps.indexOf(state.step);
    this.step.textContent = state.step.toLocaleString("en");
    this.slider.setAttribute("aria-valuetext", `step ${state.step}`);
    [...this.examples.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i) === state.img));
    this.answer(state, current);
  }

  changeModel(facts, arrays) {
    Object.assign(this, { name: facts.name, rev: facts.rev });
    this.examples.replaceChildren(...facts.examples.map(({ caption }, i) => {
      const thumb = picture(arrays.thumbnails, i);
      thumb.setAttribute("aria-hidden", "true");
      return node("button", { type: "button", class: "pz-example", title: caption, "aria-label": caption, onclick: () => this.page.set({ img: String(i), corrupt: undefined, target: undefined, against: undefined }) }, thumb);
    }));
  }

  async answer(state, current) {
    const { facts, arrays } = await this.page.source.ask("answer", state);
    if (!current()) return;
    const image = picture(arrays.image, 0);
    image.setAttribute("role", "img");
    image.setAttribute("aria-label", facts.caption);
    this.large.replaceChildren(image);
    this.caption.textContent = facts.caption;
    this.top.replaceChildren(...facts.top.map(({ label, probability }) => node("li", {},
      node("span", { class: "pz-fill", style: `width:${100 * probability}%` }), node("span", { class: "pz-name" }, label), node("span", { class: "pz-value" }, percent(probability)))));
  }
}
