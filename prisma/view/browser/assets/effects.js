// Activation patching: the metric after one head, or one token, of one layer was replaced. Exact, one run per cell.
// facts: {layers, heads, grid, prefix, metric, site, into, clean, corrupt (the metric of either run), low, high, where}
// arrays: clean, corrupt [1, height, width, channel], heads [layer, head], tokens [layer, token]

class Effects {
  constructor(root, callbacks) {
    this.callbacks = callbacks;
    this.turn = latest();
    this.words = node("p", { class: "pz-words", role: "status" }, "Computing every patch.");
    this.pictures = node("div", { class: "pz-runs" });
    this.bar = colourBar("the metric after patching");
    this.heads = this.matrix();
    this.tokens = node("div", { class: "pz-cards" });
    this.title = node("figcaption", {});
    root.replaceChildren(
      this.pictures,
      this.words,
      this.bar.element,
      node("div", { class: "pz-columns pz-effects" },
        node("figure", { class: "pz-figure" }, node("figcaption", {}, "Layer by head (attn.z)"), this.heads.element),
        node("figure", { class: "pz-figure" }, this.title, this.tokens)),
      node("p", { class: "pz-keys" }, "hover, or arrows on a map, for the numbers · the middle colour is the run without a patch"),
    );
  }

  // A table of layers and heads is a token map without a picture.
  matrix() {
    const say = (index) => this.sayHead(index);
    const map = this.interactive("Effect of each head", () => this.grid, say);
    this.layerNames = node("div", { class: "pz-rows", "aria-hidden": "true" });
    this.headNames = node("div", { class: "pz-heads-names", "aria-hidden": "true" });
    return { map, element: node("div", { class: "pz-matrix" }, node("span", {}), this.headNames, this.layerNames, map.element) };
  }

  interactive(name, scene, say) {
    const map = tokenMap(name, { over: (index) => move(index), out: () => this.rest(), pick: (index) => move(index) });
    let at = 0;
    const move = (index) => {
      at = index;
      say(index);
    };
    const onkeydown = (event) => {
      if (!event.key.startsWith("Arrow")) return;
      event.preventDefault();
      move(neighbour(scene(), at, event.key));
    };
    const about = { class: "pz-cell", tabindex: 0, role: "application", "aria-label": `${name}. Arrow keys read the numbers.` };
    return { draw: map.draw, element: node("div", { ...about, onkeydown, onfocus: () => this.grid && say(at) }, map.element) };
  }

  sayHead(index) {
    const [layer, head] = [Math.floor(index / this.facts.heads), index % this.facts.heads];
    this.say(`Layer ${layer}, head ${head}`, this.effects.heads.at(layer, head), { layer, head });
  }

  say(what, effect, where) {
    this.words.textContent = `${what}: ${this.facts.metric} ${this.format(effect)} after patching ${this.against()}.`;
    this.callbacks.state({ ...this.state, hovered: { ...where, effect } });
  }

  against() {
    const { into, clean, corrupt } = this.facts;
    return `(clean run ${this.format(clean)}, corrupt run ${this.format(corrupt)}; patched into the ${into} one)`;
  }

  rest() {
    if (this.facts) this.words.textContent = `${this.facts.metric} without a patch: clean run ${this.format(this.facts.clean)}, corrupt run ${this.format(this.facts.corrupt)}.`;
  }

  format(value) {
    return value.toFixed(3);
  }

  draw() {
    const { facts, effects } = this;
    const { low, high } = facts;
    const paint = colour(DIVERGING, low, high);
    const reach = (high - low) / 2;
    const base = facts[facts.into];
    this.bar.draw(DIVERGING, [[0, `-${this.format(reach)}`], [0.5, `no patch ${this.format(base)}`], [1, `+${this.format(reach)}`]]);
    const draws = { paint, format: (value) => this.format(value) };
    const all = [...Array(facts.layers).keys()];
    this.heads.map.draw({ ...draws, scene: this.grid, image: null, values: all.flatMap((layer) => effects.heads.row(layer)) });
    this.layerNames.replaceChildren(...all.map((layer) => node("span", {}, `layer ${layer}`)));
    this.headNames.replaceChildren(...[...Array(facts.heads).keys()].map((head) => node("span", {}, `${head}`)));
    this.made.forEach((map, layer) => map.draw({ ...draws, scene: facts, image: this.image, values: effects.tokens.row(layer) }));
    this.title.textContent = `Layer by token (${facts.site})`;
    this.state = {
      heads: all.map((layer) => effects.heads.row(layer)), tokens: all.map((layer) => effects.tokens.row(layer)),
      clean: facts.clean, corrupt: facts.corrupt, where: facts.where,
    };
    this.rest();
    this.callbacks.state(this.state);
  }

  card(layer) {
    const say = (token) => {
      this.say(`Layer ${layer}, ${tokenName(this.facts, token)}`, this.effects.tokens.at(layer, token), { layer, token });
    };
    const map = this.interactive(`Effect of each token, layer ${layer}`, () => this.facts, say);
    this.tokens.append(node("section", { class: "pz-card" }, node("h2", {}, `layer ${layer}`), map.element));
    return map;
  }

  update(manifest) {
    return this.turn((current) => this.show(manifest, current), (error) => { this.words.textContent = error.message; });
  }

  async show({ facts, arrays }, current) {
    const [clean, corrupt, heads, tokens] = await Promise.all(["clean", "corrupt", "heads", "tokens"].map((name) => load(arrays[name])));
    if (!current()) return;
    const shape = (some) => JSON.stringify([some.layers, some.heads, some.grid, some.prefix]);
    const fresh = !this.facts || shape(this.facts) !== shape(facts);
    const pictures = { clean: picture(clean, 0), corrupt: picture(corrupt, 0) };
    Object.assign(this, { facts, effects: { heads, tokens }, image: pictures[facts.into], grid: { prefix: [], grid: [facts.layers, facts.heads] } });
    if (fresh) {
      this.tokens.replaceChildren();
      this.made = [...Array(facts.layers).keys()].map((layer) => this.card(layer));
    }
    this.pictures.replaceChildren(...["clean", "corrupt"].map((run) => {
      pictures[run].setAttribute("class", "pz-thumb");
      const numbers = node("figcaption", {}, node("strong", {}, `${run} run`), node("span", {}, `${facts.metric}: ${this.format(facts[run])}`));
      return node("figure", {}, pictures[run], numbers);
    }));
    this.draw();
  }
}

const effects = (root, callbacks) => new Effects(root, callbacks);
