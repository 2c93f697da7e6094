// Where each token attends, and who attends to it: every head small, one head large.
// facts: {layers, heads, grid: [rows, columns], prefix: [name, ...], where}
// arrays: image [1, height, width, channel], "layer 0" [head, query, key], "layer 1", ...

const weight = (value) => value.toFixed(3);
const HELP =
  "Arrow keys move the token, 0 is the first token, square brackets change the layer, comma and full stop the head, " +
  "Enter pins, Escape unpins.";

class Attention {
  constructor(root, callbacks) {
    Object.assign(this, { callbacks, layer: 0, head: 0, cursor: 0, hover: null, pinned: false, opacity: 0.9, alike: false });
    this.turn = latest();
    this.to = this.side("Where it attends");
    this.from = this.side("Who attends to it");
    this.thumbnails = new HeadGrid((layer, head) => this.set({ layer, head }));
    this.words = node("p", { class: "pz-words", role: "status" }, "Loading the attention of this image.");
    this.table = node("tbody", {});
    const pair = node("div", { class: "pz-pair" }, this.to.element, this.from.element);
    const about = { tabindex: 0, role: "application", "aria-roledescription": "attention map", "aria-label": `Attention. ${HELP}` };
    const onkeydown = (event) => this.key(event) && event.preventDefault();
    const headings = ["It attends to", "weight", "Attended by", "weight"].map((text) => node("th", { scope: "col" }, text));
    root.replaceChildren(
      this.tools(),
      this.words,
      node("div", { class: "pz-columns" }, node("div", { class: "pz-stage", ...about, onkeydown }, pair), this.thumbnails.element),
      node("p", { class: "pz-keys" }, "hover previews · click pins · Esc unpins · arrows move · 0 first token · [ ] layer · , . head"),
      node("details", { class: "pz-more" }, node("summary", {}, "The strongest, as a table"),
        node("table", {}, node("thead", {}, node("tr", {}, ...headings)), this.table)),
    );
  }

  tools() {
    this.layers = choice("Layer", [], (value) => this.set({ layer: Number(value) }));
    this.heads = choice("Head", [], (value) => this.set({ head: Number(value) }));
    const scales = [["own", "each map to its strongest patch"], ["alike", "all heads alike"]];
    const scale = choice("Colours", scales, (value) => this.set({ alike: value === "alike" }));
    const oninput = () => this.set({ opacity: slider.value / 100 });
    const slider = node("input", { type: "range", min: 0, max: 100, value: 100 * this.opacity, oninput });
    const opacity = node("label", { class: "pz-choice" }, node("span", {}, "Image to map"), slider);
    return node("div", { class: "pz-tools" }, this.layers.element, this.heads.element, scale.element, opacity);
  }

  side(title) {
    const map = tokenMap(title, {
      over: (token) => token !== this.hover && this.set({ hover: token }),
      out: () => this.set({ hover: null }),
      pick: (token) => this.set({ pinned: !(this.pinned && token === this.cursor), cursor: token }),
    });
    const bar = colourBar(title);
    const element = node("figure", { class: "pz-figure" }, node("figcaption", {}, title), map.element, bar.element);
    return { map, bar, element };
  }

  set(values) {
    Object.assign(this, values);
    this.draw();
  }

  // The token that is asked about.
  get token() {
    return this.hover === null || this.pinned ? this.cursor : this.hover;
  }

  key(event) {
    if (!this.facts || event.ctrlKey || event.metaKey || event.altKey) return false;
    const around = (value, step, count) => (value + step + count) % count;
    const moves = {
      0: () => ({ cursor: 0, hover: null }),
      "[": () => ({ layer: around(this.layer, -1, this.facts.layers) }),
      "]": () => ({ layer: around(this.layer, 1, this.facts.layers) }),
      ",": () => ({ head: around(this.head, -1, this.facts.heads) }),
      ".": () => ({ head: around(this.head, 1, this.facts.heads) }),
      Enter: () => ({ cursor: this.token, pinned: !this.pinned, hover: null }),
      Escape: () => ({ pinned: false, hover: null }),
    };
    const arrow = () => ({ cursor: neighbour(this.facts, this.token, event.key), hover: null });
    const move = event.key.startsWith("Arrow") ? arrow : moves[event.key];
    if (move) this.set(move());
    return Boolean(move);
  }

  // Weights from (row) and to (column) a token.
  row(layer, head, token) {
    return this.patterns[layer].row(head, token);
  }

  column(layer, head, token) {
    return Array.from({ length: countTokens(this.facts) }, (_, other) => this.patterns[layer].at(head, other, token));
  }

  // The top of a map's colours: a prefix token that draws most of the attention must not hide the patches.
  top(values) {
    return Math.max(1e-6, ...values.slice(this.facts.prefix.length));
  }

  drawSide(side, read) {
    const { facts, token } = this;
    const values = read(this.layer, this.head, token);
    const loaded = this.patterns.flatMap((pattern, layer) => (pattern ? [layer] : []));
    const every = () => loaded.flatMap((layer) => [...Array(facts.heads).keys()].map((head) => this.top(read(layer, head, token))));
    const high = this.alike ? Math.max(...every()) : this.top(values);
    const paint = colour(SEQUENTIAL, 0, high);
    side.map.draw({ scene: facts, image: this.image, values, paint, opacity: this.opacity, marked: token, format: weight });
    const beyond = values.some((value) => value > high); // only a prefix token can be
    side.bar.draw(SEQUENTIAL, [[0, "0"], [0.5, weight(high / 2)], [1, `${beyond ? "≥ " : ""}${weight(high)}`]]);
    return { values, high };
  }

  draw() {
    if (!this.facts || !this.patterns[this.layer]) return;
    const { facts, layer, head, token, pinned, hover } = this;
    this.layers.select.value = layer;
    this.heads.select.value = head;
    const to = this.drawSide(this.to, (...where) => this.row(...where));
    const from = this.drawSide(this.from, (...where) => this.column(...where));
    this.thumbnails.draw(facts, this.patterns, { layer, head }, (pattern, which) => {
      const values = pattern.row(which, token);
      return { values: values.slice(facts.prefix.length), high: this.alike ? to.high : this.top(values) };
    });
    const best = [to, from].map(({ values }) => strongest(facts, values, 10, weight));
    const other = pinned && hover !== null && hover !== token
      ? ` To ${tokenName(facts, hover)} ${weight(to.values[hover])}, from it ${weight(from.values[hover])}.` : "";
    this.words.textContent =
      `Layer ${layer}, head ${head}: ${tokenName(facts, token)}${pinned ? " (pinned)" : ""} attends most to ` +
      `${best[0][0][0]} (${best[0][0][1]}); most attentive to it is ${best[1][0][0]} (${best[1][0][1]}).${other}`;
    const cells = (i) => [...best[0][i], ...best[1][i]].map((text) => node("td", {}, text));
    this.table.replaceChildren(...best[0].map((_, i) => node("tr", {}, ...cells(i))));
    this.callbacks.state({ layer, head, token, pinned, to: to.values, from: from.values, where: facts.where });
  }

  update(manifest) {
    return this.turn((current) => this.show(manifest, current), (error) => { this.words.textContent = error.message; });
  }

  async show({ facts, arrays }, current) {
    const shape = ({ layers, heads, grid, prefix }) => JSON.stringify([layers, heads, grid, prefix]);
    const same = this.facts && shape(this.facts) === shape(facts);
    const first = same ? this.layer : 0;
    const [image, pattern] = await Promise.all([load(arrays.image), load(arrays[`layer ${first}`])]);
    if (!current()) return;
    if (!same) {
      const cursor = facts.prefix.length ? 0 : Math.floor(countTokens(facts) / 2);
      Object.assign(this, { layer: 0, head: 0, hover: null, pinned: false, cursor });
      this.layers.select.replaceChildren(...[...Array(facts.layers).keys()].map((i) => option(i, i)));
      this.heads.select.replaceChildren(...[...Array(facts.heads).keys()].map((i) => option(i, i)));
    }
    Object.assign(this, { facts, image: picture(image, 0), patterns: Array(facts.layers).fill(null) });
    this.patterns[first] = pattern;
    this.draw();
    const rest = [...Array(facts.layers).keys()].filter((layer) => layer !== first);
    await Promise.all(rest.map(async (layer) => {
      const later = await load(arrays[`layer ${layer}`]);
      if (current()) this.patterns[layer] = later;
    }));
    if (current()) this.draw();
  }
}

// All heads of all layers, small: what the chosen token attends to among the patches. A click chooses a head.
class HeadGrid {
  constructor(choose) {
    const caption = node("figcaption", {}, "Every head: where this token attends");
    this.canvas = node("canvas", { class: "pz-heads", role: "img", "aria-label": "Every head, a row for each layer" });
    this.element = node("figure", { class: "pz-figure pz-overview" }, caption, this.canvas);
    this.canvas.addEventListener("click", (event) => {
      const bounds = this.canvas.getBoundingClientRect();
      const { margin, side, tall } = this.sizes();
      const head = Math.floor((event.clientX - bounds.left - margin) / side);
      const layer = Math.floor((event.clientY - bounds.top - margin) / tall);
      if (head >= 0 && layer >= 0 && head < this.facts.heads && layer < this.facts.layers) choose(layer, head);
    });
    new ResizeObserver(() => this.facts && this.paint()).observe(this.canvas);
  }

  sizes() {
    const margin = 20;
    const side = Math.min(110, ((this.canvas.parentElement.clientWidth || 240) - margin) / this.facts.heads);
    return { margin, side, tall: (side - 4) * (this.facts.grid[0] / this.facts.grid[1]) + 4 };
  }

  // read(pattern, head) -> {values of the patches, high}
  draw(facts, patterns, chosen, read) {
    Object.assign(this, { facts, patterns, chosen, read });
    this.paint();
  }

  paint() {
    const { facts, chosen } = this;
    const { margin, side, tall } = this.sizes();
    const context = sharp(this.canvas, this.canvas.clientWidth, margin + tall * facts.layers);
    context.imageSmoothingEnabled = false;
    context.fillStyle = getComputedStyle(this.canvas).color;
    context.font = "11px ui-monospace, SFMono-Regular, Menlo, monospace";
    [context.textAlign, context.textBaseline] = ["center", "middle"];
    for (let head = 0; head < facts.heads; head += 1) context.fillText(head, margin + (head + 0.5) * side, margin / 2);
    for (let layer = 0; layer < facts.layers; layer += 1) {
      context.fillText(layer, margin / 2, margin + (layer + 0.5) * tall);
      for (let head = 0; head < facts.heads && this.patterns[layer]; head += 1) {
        const [x, y] = [margin + head * side, margin + layer * tall];
        context.drawImage(this.thumbnail(this.read(this.patterns[layer], head)), x + 2, y + 2, side - 4, tall - 4);
        if (layer === chosen.layer && head === chosen.head) {
          context.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--pz-accent");
          context.lineWidth = 2.5;
          context.strokeRect(x + 0.5, y + 0.5, side - 1, tall - 1);
        }
      }
    }
  }

  thumbnail({ values, high }) {
    const [rows, columns] = this.facts.grid;
    this.small ||= node("canvas", {});
    Object.assign(this.small, { width: columns, height: rows });
    const pixels = new ImageData(columns, rows);
    const paint = colour(SEQUENTIAL, 0, high);
    values.forEach((value, i) => pixels.data.set([...paint(value), 255], 4 * i));
    this.small.getContext("2d").putImageData(pixels, 0, 0);
    return this.small;
  }
}

const attention = (root, callbacks) => new Attention(root, callbacks);
