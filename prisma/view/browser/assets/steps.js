// A slider over the checkpoints of a run, evenly spaced by index, that says the training step; hidden if there is one.
// facts: {steps: [number, ...], chosen: index}

class Steps {
  constructor(root, callbacks) {
    this.callbacks = callbacks;
    this.value = node("output", { class: "pz-step" });
    const oninput = () => {
      this.say();
      callbacks.choose(Number(this.slider.value));
    };
    this.slider = node("input", { type: "range", min: 0, step: 1, class: "pz-timeline", "aria-label": "Training step", oninput });
    this.ends = node("div", { class: "pz-ends", "aria-hidden": "true" });
    this.root = root;
    root.replaceChildren(
      node("div", { class: "pz-steps" }, node("span", { class: "pz-title" }, "Training step"), this.value, this.slider, this.ends),
    );
  }

  say() {
    const step = this.steps[Number(this.slider.value)].toLocaleString("en");
    this.value.textContent = step;
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
    this.callbacks.state({ index: Number(this.slider.value), step: this.steps[Number(this.slider.value)] });
  }

  async update({ facts }) {
    this.steps = facts.steps;
    this.slider.max = facts.steps.length - 1;
    this.slider.value = facts.chosen;
    this.root.hidden = facts.steps.length < 2;
    const marks = [...new Set([0, 0.25, 0.5, 0.75, 1].map((place) => Math.round(place * (facts.steps.length - 1))))];
    this.ends.replaceChildren(...marks.map((i) => node("span", {}, facts.steps[i].toLocaleString("en"))));
    this.say();
  }
}

const steps = (root, callbacks) => new Steps(root, callbacks);
