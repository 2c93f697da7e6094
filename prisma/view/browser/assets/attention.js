// Where each token attends, or who attends to it: one head large, and every head of every layer small.
import { brief, choice, colourBar, level, node, range, SEQUENTIAL, SEQUENTIAL_PIXELS, sharp } from "./core.js";
import { countTokens, neighbour, strongest, tokenMap, tokenName } from "./tokens.js";
import { picture } from "./core.js";

const KEYS_HELP = "Arrow keys move the token, 0 is the first token, square brackets change the layer, comma and full stop the head, Enter pins, Escape unpins.";

// The attention of one layer, as attention_rows of payload.py writes it, without copying: patches are 8-bit shares of
// the largest patch in their row.
export class Pattern {
  constructor(arrays, prefix) {
    const [heads, queries, patches] = arrays.pattern.shape;
    Object.assign(this, {
      heads, tokens: queries, patches, prefix,
      levels: arrays.pattern.values, scales: arrays["pattern.scale"].values, first: arrays["pattern.prefix"].values,
    });
  }

  at(head, query, key) {
    const row = head * this.tokens + query;
    if (key < this.prefix) return this.first[row * this.prefix + key];
    return (this.levels[row * this.patches + key - this.prefix] * this.scales[row]) / 255;
  }

  // Weights from a token ("to") or to it ("from"), written into `out`.
  read(way, head, token, out) {
    for (let other = 0; other < this.tokens; other += 1) {
      out[other] = way === "to" ? this.at(head, token, other) : this.at(head, other, token);
    }
    return out;
  }
}

export class Attention {
  static TITLE = "Attention";

  constructor(root, page) {
    Object.assign(this, { page, hover: null, opacity: 0.85, patterns: [] });
    this.layers = choice("Layer", [], (value) => page.set({ layer: Number(value) }));
    this.heads = choice("Head", [], (value) => page.set({ head: Number(value) }));
    this.way = choice("Show", [["to", "where it attends"], ["from", "who attends to it"]], (way) => page.set({ way }));
    this.scale = choice("Colours", [["row", "each map to its strongest patch"], ["alike", "all heads alike"]], (scale) => page.set({ scale }));
    const slider = node("input", { type: "range", min: 0, max: 100, value: 100 * this.opacity, oninput: () => { this.opacity = slider.value / 100; this.draw(); } });
    const opacity = node("label", { class: "pz-choice" }, node("span", {}, "Image to map"), slider);
    this.map = tokenMap("Attention map", {
      over: (token) => token !== this.hover && this.show({ hover: token }),
      out: () => this.show({ hover: null }),
      pick: (token) => page.set({ token, pin: this.pinned && token === page.state.token ? undefined : "1" }),
    });
    this.bar = colourBar("attention weight");
    this.words = node("p", { class: "pz-words" });
    this.grid = new HeadGrid((layer, head) => page.set({ layer, head }));
    this.table = node("tbody", {});
    const about = { class: "pz-stage", tabindex: 0, role: "application", "aria-roledescription": "attention map", "aria-label": `Attention. ${KEYS_HELP}` };
    const headings = ["token", "weight"].map((text) => node("th", { scope: "col" }, text));
    root.append(
      node("p", { class: "pz-help" }, "Where information may flow from, head by head. Attention is not explanation: see Patching for what matters."),
      node("div", { class: "pz-tools" }, this.layers.element, this.heads.element, this.way.element, this.scale.element, opacity),
      this.words,
      node("div", { class: "pz-columns" },
        node("div", { ...about, onkeydown: (event) => this.key(event) && event.preventDefault() }, this.map.element, this.bar.element),
        this.grid.element),
      node("p", { class: "pz-keys" }, "hover previews · click pins · Esc unpins · arrows move · 0 first token · [ ] layer · , . head"),
      node("details", { class: "pz-more" }, node("summary", {}, "Show as table"),
        node("table", {}, node("thead", {}, node("tr", {}, ...headings)), this.table)),
    );
  }

  get pinned() {
    return this.page.state.pin === "1";
  }

  get token() {
    return this.hover === null || this.pinned ? this.state.token : this.hover;
  }

  show(values) {
    Object.assign(this, values);
    if (this.state) this.draw();
  }

  key(event) {
    if (!this.state || event.ctrlKey || event.metaKey || event.altKey) return false;
    const { state, scene } = this;
    const around = (value, step, count) => (value + step + count) % count;
    const moves = {
      0: () => ({ token: 0 }),
      "[": () => ({ layer: around(state.layer, -1, scene.layers) }),
      "]": () => ({ layer: around(state.layer, 1, scene.layers) }),
      ",": () => ({ head: around(state.head, -1, scene.heads) }),
      ".": () => ({ head: around(state.head, 1, scene.heads) }),
      Enter: () => ({ token: this.token, pin: this.pinned ? undefined : "1" }),
      Escape: () => ({ pin: undefined }),
    };
    const arrow = () => ({ token: neighbour(scene, this.token, event.key) });
    const move = event.key.startsWith("Arrow") ? arrow : moves[event.key];
    if (!move) return false;
    const values = move();
    this.hover = null;
    this.page.set(values);
    return true;
  }

  async update(state, scene, current) {
    const place = ["model", "rev", "step", "img"].map((key) => state[key]).join(" ");
    const ask = (layer) => this.page.source.ask("attention", state, { part: layer });
    const first = ask(state.layer);
    const [{ facts, arrays }, { arrays: shown }] = await Promise.all([first, this.page.source.ask("answer", state)]);
    if (!current()) return;
    if (place !== this.place) Object.assign(this, { place, patterns: Array(scene.layers).fill(null), image: picture(shown.image, 0) });
    if (state.token === undefined || state.token >= countTokens(scene)) this.page.fill({ token: facts.state.token });
    this.patterns[state.layer] ||= new Pattern(arrays, scene.prefix.length);
    Object.assign(this, { state: this.page.state, scene, facts });
    this.layers.offer(range(scene.layers).map((i) => [i, i]));
    this.heads.offer(range(scene.heads).map((i) => [i, i]));
    this.draw();
    this.rest(ask, place);
  }

  // The other layers, for the small maps, one after the other.
  async rest(ask, place) {
    for (let layer = 0; layer < this.scene.layers; layer += 1) {
      if (this.patterns[layer]) continue;
      const { arrays } = await ask(layer).catch(() => ({}));
      if (place !== this.place || !arrays) return;
      this.patterns[layer] = new Pattern(arrays, this.scene.prefix.length);
      this.grid.draw(this);
    }
  }

  // The top of a map's colours: a prefix token that draws most of the attention must not hide the patches.
  high(pattern, head, token) {
    let high = 1e-6;
    for (let key = this.scene.prefix.length; key < pattern.tokens; key += 1) {
      high = Math.max(high, this.state.way === "to" ? pattern.at(head, token, key) : pattern.at(head, key, token));
    }
    return high;
  }

  draw() {
    const { scene, state, token } = this;
    const pattern = this.patterns[state.layer];
    if (!pattern) return;
    const began = performance.now();
    const head = Math.min(state.head, scene.heads - 1);
    for (const [control, value] of [[this.layers, state.layer], [this.heads, head], [this.way, state.way], [this.scale, state.scale]]) {
      if (control.select.value !== String(value)) control.select.value = value;
    }
    this.values = pattern.read(state.way, head, token, this.values?.length === pattern.tokens ? this.values : new Float32Array(pattern.tokens));
    this.alike = state.scale === "alike"
      ? Math.max(...this.patterns.flatMap((some) => (some ? range(scene.heads).map((h) => this.high(some, h, token)) : []))) : null;
    const high = this.alike ?? this.high(pattern, head, token);
    this.map.draw({ scene, image: this.image, values: this.values, map: SEQUENTIAL, pixels: SEQUENTIAL_PIXELS, low: 0, high, opacity: this.opacity, marked: token, format: brief });
    const beyond = this.values.some((value) => value > high * 1.001); // only a prefix token can be
    this.bar.draw(SEQUENTIAL, [[0, "0"], [0.5, brief(high / 2)], [1, `${beyond ? "≥ " : ""}${brief(high)}`]]);
    this.grid.draw(this);
    this.tell(head, token);
    document.documentElement.dataset.prismaDrawMs = (performance.now() - began).toFixed(2);
  }

  tell(head, token) {
    const { scene, state } = this;
    let best = 0;
    for (let i = 1; i < this.values.length; i += 1) if (this.values[i] > this.values[best]) best = i;
    const what = state.way === "to" ? "attends most to" : "is attended to most by";
    this.words.textContent = `Layer ${state.layer}, head ${head}: ${tokenName(scene, token)}${this.pinned ? " (pinned)" : ""} ${what} ${tokenName(scene, best)} (${brief(this.values[best])}).`;
    if (!this.table.closest("details").open) return;
    const rows = strongest(scene, this.values, 10, brief);
    this.table.replaceChildren(...rows.map((cells) => node("tr", {}, ...cells.map((text) => node("td", {}, text)))));
  }
}

// All heads of all layers, a pixel for each patch, painted at once. A click chooses a head.
class HeadGrid {
  constructor(choose) {
    this.canvas = node("canvas", { class: "pz-heads", role: "img", "aria-label": "Every head, a row for each layer" });
    this.element = node("figure", { class: "pz-figure pz-overview" }, node("figcaption", {}, "Every head of every layer"), this.canvas);
    this.small = document.createElement("canvas");
    this.canvas.addEventListener("click", (event) => {
      if (!this.size) return;
      const bounds = this.canvas.getBoundingClientRect();
      const { margin, side, tall } = this.size;
      const head = Math.floor((event.clientX - bounds.left - margin) / side);
      const layer = Math.floor((event.clientY - bounds.top - margin) / tall);
      if (head >= 0 && layer >= 0 && head < this.of.scene.heads && layer < this.of.scene.layers) choose(layer, head);
    });
    new ResizeObserver(() => this.of && this.canvas.clientWidth !== this.width && this.draw(this.of)).observe(this.canvas);
  }

  draw(of) {
    this.of = of;
    const { scene, state, token, patterns } = of;
    const [rows, columns] = scene.grid;
    this.width = this.canvas.clientWidth || 240;
    const margin = 20;
    const side = Math.min(Math.max(56, 260 / scene.layers), (this.width - margin) / scene.heads);
    const tall = (side * rows) / columns;
    this.size = { margin, side, tall };
    const gap = Math.max(1, Math.round(columns / 14));
    const [wide, high] = [(columns + gap) * scene.heads, (rows + gap) * scene.layers];
    if (this.small.width !== wide || this.small.height !== high) {
      Object.assign(this.small, { width: wide, height: high });
      this.data = new ImageData(wide, high);
      this.target = new Uint32Array(this.data.data.buffer);
    }
    patterns.forEach((pattern, layer) => pattern && this.paint(of, pattern, layer, token, wide, gap));
    this.small.getContext("2d").putImageData(this.data, 0, 0);
    const context = sharp(this.canvas, this.width, margin + tall * scene.layers);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.small, margin, margin, side * scene.heads, tall * scene.layers);
    this.label(context, of, margin, side, tall);
    const head = Math.min(state.head, scene.heads - 1);
    context.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--pz-accent");
    context.lineWidth = 2.5;
    context.strokeRect(margin + head * side - 1, margin + state.layer * tall - 1, side, tall);
  }

  paint({ scene, state, alike }, pattern, layer, token, wide, gap) {
    const [rows, columns] = scene.grid;
    const { prefix, patches, tokens, levels, scales } = pattern;
    const share = new Float32Array(patches);
    for (let head = 0; head < scene.heads; head += 1) {
      let top = 0;
      for (let p = 0; p < patches; p += 1) {
        const row = head * tokens + (state.way === "to" ? token : prefix + p);
        share[p] = state.way === "to" ? levels[row * patches + p] * scales[row]
          : token < prefix ? 255 * pattern.first[row * prefix + token] : levels[row * patches + token - prefix] * scales[row];
        if (share[p] > top) top = share[p];
      }
      const high = alike === null ? top : 255 * alike;
      for (let p = 0; p < patches; p += 1) {
        const y = layer * (rows + gap) + Math.floor(p / columns);
        this.target[y * wide + head * (columns + gap) + (p % columns)] = SEQUENTIAL_PIXELS[level(share[p], 0, high)];
      }
    }
  }

  label(context, { scene }, margin, side, tall) {
    context.fillStyle = getComputedStyle(this.canvas).color;
    context.font = "11px ui-monospace, SFMono-Regular, Menlo, monospace";
    [context.textAlign, context.textBaseline] = ["center", "middle"];
    range(scene.heads).forEach((head) => context.fillText(head, margin + (head + 0.5) * side, margin / 2));
    range(scene.layers).forEach((layer) => context.fillText(layer, margin / 2, margin + (layer + 0.5) * tall));
  }
}
