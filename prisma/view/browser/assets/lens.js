// What the model would answer if it stopped after each layer: for the whole image, and for each token alone.
// facts: {stages: [name, ...], labels: [name, ...], grid, prefix, answer: class, where}
// arrays: image, readout [stage, class], logits [class], "stage 0" [token, class], "stage 1", ...

const TOP = 5;
const percent = (value) => (value < 0.0005 ? "<0.001" : value.toFixed(3)); // no softmax gives a 0

class Lens {
  constructor(root, callbacks) {
    Object.assign(this, { callbacks, answer: 0, cursor: 0, hover: null, pinned: false });
    this.turn = latest();
    this.classes = choice("Class on the maps", [], (value) => this.set({ answer: Number(value) }));
    this.bar = colourBar("probability of the class");
    this.words = node("p", { class: "pz-words", role: "status" }, "Loading the lens of this image.");
    this.cards = node("div", { class: "pz-cards" });
    root.replaceChildren(
      node("div", { class: "pz-tools" }, this.classes.element, this.bar.element),
      this.words,
      this.cards,
      node("p", { class: "pz-keys" }, "hover previews a token · click pins · Esc unpins · click a class to map it · arrows move"),
    );
    root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.set({ pinned: false, hover: null });
    });
  }

  set(values) {
    Object.assign(this, values);
    if (this.facts) this.draw();
  }

  get token() {
    return this.hover === null || this.pinned ? this.cursor : this.hover;
  }

  card(name) {
    const map = tokenMap(`Probability of the class at every token, ${name}`, {
      over: (token) => token !== this.hover && this.set({ hover: token }),
      out: () => this.set({ hover: null }),
      pick: (token) => this.set({ pinned: !(this.pinned && token === this.cursor), cursor: token }),
    });
    const stage = node("div", {
      tabindex: 0, role: "application", "aria-label": `Logit lens, ${name}. Arrow keys move the token.`,
      onkeydown: (event) => {
        if (!event.key.startsWith("Arrow")) return;
        event.preventDefault();
        this.set({ cursor: neighbour(this.facts, this.token, event.key), hover: null });
      },
    }, map.element);
    const [whole, alone] = [node("ol", { class: "pz-top" }), node("ol", { class: "pz-top" })];
    const title = node("h3", {}, "This token alone");
    const element = node("section", { class: "pz-card" }, node("h2", {}, name),
      node("h3", {}, "The image, read out here"), whole, stage, title, alone);
    return { map, whole, alone, title, element };
  }

  // The likeliest classes as bars; a click puts a class on the maps.
  bars(list, values) {
    const order = values.map((value, index) => [value, index]).sort((a, b) => b[0] - a[0]).slice(0, TOP);
    list.replaceChildren(...order.map(([value, index]) => {
      const chosen = index === this.answer;
      const bar = node("span", { class: "pz-fill", style: `width:${100 * value}%` });
      const name = node("span", { class: "pz-name" }, this.facts.labels[index]);
      const button = node("button", { type: "button", "aria-pressed": chosen, onclick: () => this.set({ answer: index }) },
        bar, name, node("span", { class: "pz-value" }, percent(value)));
      return node("li", {}, button);
    }));
    return order.map(([, index]) => index);
  }

  draw() {
    const { facts, token, answer } = this;
    this.classes.select.value = answer;
    const maps = this.tokens.map((tokens) => tokens.column(answer));
    const high = Math.max(1e-6, ...maps.flat());
    this.bar.draw(SEQUENTIAL, [[0, "0"], [0.5, percent(high / 2)], [1, percent(high)]]);
    const paint = colour(SEQUENTIAL, 0, high);
    const tops = this.made.map((card, stage) => {
      card.map.draw({ scene: facts, image: this.image, values: maps[stage], paint, marked: token, format: percent });
      card.title.textContent = `${tokenName(facts, token)} alone`;
      this.bars(card.whole, this.readout.row(stage));
      return this.bars(card.alone, this.tokens[stage].row(token));
    });
    const last = facts.stages.length - 1;
    this.words.textContent =
      `The model answers ${facts.labels[facts.answer]} (logit ${this.logits.at(facts.answer).toFixed(3)}, ` +
      `probability ${percent(this.readout.at(last, facts.answer))}).`;
    this.callbacks.state({
      token, answer, tops, logits: this.logits.row(), readout: facts.stages.map((_, stage) => this.readout.row(stage)), map: maps, where: facts.where,
    });
  }

  update(manifest) {
    return this.turn((current) => this.show(manifest, current), (error) => { this.words.textContent = error.message; });
  }

  async show({ facts, arrays }, current) {
    const names = ["image", "readout", "logits", ...facts.stages.map((_, stage) => `stage ${stage}`)];
    const [image, readout, logits, ...tokens] = await Promise.all(names.map((name) => load(arrays[name])));
    if (!current()) return;
    const shape = ({ stages, labels, grid, prefix }) => JSON.stringify([stages, labels, grid, prefix]);
    if (!this.facts || shape(this.facts) !== shape(facts)) {
      const cursor = facts.prefix.length ? 0 : Math.floor(countTokens(facts) / 2);
      Object.assign(this, { cursor, hover: null, pinned: false, answer: facts.answer });
      this.classes.select.replaceChildren(...facts.labels.map((text, index) => option(index, text)));
      this.made = facts.stages.map((name) => this.card(name));
      this.cards.replaceChildren(...this.made.map((card) => card.element));
    } else if (arrays.image.url !== this.url) this.answer = facts.answer; // equal pictures have equal addresses
    Object.assign(this, { facts, url: arrays.image.url, readout, logits, tokens, image: picture(image, 0) });
    this.draw();
  }
}

const lens = (root, callbacks) => new Lens(root, callbacks);
