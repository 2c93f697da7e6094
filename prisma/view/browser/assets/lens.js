// What the model would answer if it stopped after each layer: for the whole image, and for each token alone.
import { choice, colourBar, node, option, picture, range, SEQUENTIAL, SEQUENTIAL_PIXELS } from "./core.js";
import { LensNumbers } from "./lens_numbers.js";
import { LensTable } from "./lens_table.js";
import { lensDrawing } from "./lens_drawing.js";
import { StageCurves } from "./stage_curves.js";
import { countTokens, neighbour, tokenMap, tokenName } from "./tokens.js";
import { tableOf } from "./drawing.js";

const SHOWN = 5; // classes in a list
const MOST_CURVES = 6;
const probable = (value) => (value < 0.0005 ? "<0.001" : value.toFixed(3)); // no softmax gives a 0

export class Lens {
  static TITLE = "Logit lens";

  constructor(root, page) {
    Object.assign(this, { page, hover: null, root });
    this.layers = choice("Map after", [], (value) => page.set(this.placed(Number(value))));
    this.target = choice("Class on the maps", [], (value) => page.set({ target: Number(value) }));
    this.bar = colourBar("probability");
    this.mapBar = colourBar("probability of the class on the map");
    this.words = node("p", { class: "pz-words" });
    this.last = node("p", { class: "pz-answer-line" });
    this.table = new LensTable({
      over: (stage, token) => this.over({ stage, token }), out: () => this.over(null),
      pick: (stage, token) => page.set({ ...this.placed(stage), token, pin: this.pinned && token === this.state.token && stage === this.stage ? undefined : "1" }),
      key: (event) => this.key(event, false) && event.preventDefault(),
    });
    const stage = (token) => ({ stage: this.place.stage, token });
    this.map = tokenMap("Probability of the class at every token", {
      over: (token) => this.over(stage(token)), out: () => this.over(null), pick: (token) => page.set({ token, pin: this.pinned && token === this.state.token ? undefined : "1" }),
    });
    this.mapTitle = node("figcaption", {});
    this.under = node("div", { class: "pz-under", "aria-hidden": "true" }); // the browser blends it: drawing it at each hover is slow
    this.mapStage = node("div", { class: "pz-stage pz-over", tabindex: 0, role: "application", "aria-roledescription": "map of the image", "aria-label": "Class map. Arrow keys move the token, square brackets the layer, Enter pins, Escape unpins.", onkeydown: (event) => this.key(event, true) && event.preventDefault() }, this.under, this.map.element);
    this.small = node("div", { class: "pz-lens-small", role: "group", "aria-label": "The class at every stage; each picture chooses its stage" });
    this.lists = [new Answers("The image, read out here", (c) => page.set({ target: c })), new Answers("This token alone", (c) => page.set({ target: c }))];
    this.curves = new StageCurves("Probability over the layers: the image; dashed, the token alone");
    this.add = choice("Add a class to the curves", [], (value) => value !== "" && this.addCurve(Number(value)));
    this.prompts = new Prompts((prompts) => page.set({ prompts, target: undefined, against: undefined, classes: undefined }));
    this.more = node("details", { class: "pz-more", ontoggle: () => this.state && this.tabulate() }, node("summary", {}, "Show as table"));
    this.maps = node("div", { class: "pz-lens-maps" }, node("figure", { class: "pz-figure" }, this.mapTitle, this.mapStage, this.mapBar.element), this.small);
    root.append(
      node("p", { class: "pz-help" }, "The model's own readout, applied early. Only the last layer was trained to be read: earlier answers show what could be read, not what the model believes."),
      this.prompts.element, this.last, this.words, this.table.element,
      node("div", { class: "pz-lens-bar" }, this.bar.element, node("span", { class: "pz-quiet" }, "colour: probability of the likeliest class · underlined: it is the class on the maps")),
      node("div", { class: "pz-tools" }, this.target.element, this.layers.element),
      node("div", { class: "pz-columns pz-lens-columns" }, this.maps,
        node("div", {}, node("div", { class: "pz-pair" }, ...this.lists.map((list) => list.element)), this.curves.element, this.add.element)),
      node("p", { class: "pz-keys" }, "hover previews · click pins · Esc unpins · arrows move · 0 first token · [ ] layer · a click on a class puts it on the maps"),
      this.more,
    );
  }

  get pinned() {
    return this.page.state.pin === "1";
  }

  // Stage 0 is the embedding, stage s is after layer s - 1; an address has the layer.
  get stage() {
    return this.page.state.embedding === "1" ? 0 : Math.min(this.page.state.layer, this.facts.stages.length - 2) + 1;
  }

  get place() {
    return this.hover === null || this.pinned ? { stage: this.stage, token: this.state.token } : this.hover;
  }

  placed(stage) {
    return stage === 0 ? { embedding: "1" } : { layer: stage - 1, embedding: undefined };
  }

  over(place) {
    if (!this.state || this.pinned || JSON.stringify(place) === JSON.stringify(this.hover)) return;
    this.hover = place;
    this.point();
  }

  key(event, onMap) {
    if (!this.state || event.ctrlKey || event.metaKey || event.altKey) return false;
    const { stage, token } = this.place;
    const [last, tokens] = [this.facts.stages.length - 1, this.lens.tokens];
    const within = (value, most) => Math.max(0, Math.min(most, value));
    const moves = {
      0: () => ({ ...this.placed(stage), token: 0 }),
      "[": () => this.placed(within(stage - 1, last)),
      "]": () => this.placed(within(stage + 1, last)),
      ArrowUp: () => this.placed(within(stage - 1, last)),
      ArrowDown: () => this.placed(within(stage + 1, last)),
      ArrowLeft: () => ({ ...this.placed(stage), token: within(token - 1, tokens - 1) }),
      ArrowRight: () => ({ ...this.placed(stage), token: within(token + 1, tokens - 1) }),
      Enter: () => ({ ...this.placed(stage), token, pin: this.pinned ? undefined : "1" }),
      Escape: () => ({ pin: undefined }),
    };
    const move = onMap && event.key.startsWith("Arrow") ? () => ({ ...this.placed(stage), token: neighbour(this.scene, token, event.key) }) : moves[event.key];
    if (!move) return false;
    this.page.set(move());
    this.hover = null;
    return true;
  }

  get chosen() {
    const asked = String(this.page.state.classes || "").split(",").filter((text) => /^\d{1,6}$/.test(text)).map(Number);
    const known = [...new Set(asked)].filter((c) => c < this.lens.classes).slice(0, MOST_CURVES);
    return known.length ? known : this.lens.whole(this.lens.stages - 1, 3).map(([c]) => c);
  }

  addCurve(c) {
    const next = [...this.chosen.filter((some) => some !== c).slice(-(MOST_CURVES - 1)), c];
    this.add.select.value = "";
    this.page.set({ classes: next.join(",") });
  }

  async update(state, scene, current) {
    const asked = this.page.source.ask("lens", state);
    const [found, answer] = await Promise.all([asked, this.page.source.ask("answer", state).catch(() => null)]);
    if (!current()) return;
    const { facts } = found;
    if (found !== this.found) Object.assign(this, { found, facts, lens: new LensNumbers(found) });
    if (state.target >= this.lens.classes) throw new Error(`This model has the classes 0 to ${this.lens.classes - 1}; the address has ${state.target}.`);
    const filled = { token: state.token < this.lens.tokens ? state.token : facts.state.token, target: state.target ?? facts.answer };
    if (filled.token !== state.token || filled.target !== state.target) this.page.fill(filled);
    await this.fetchColumns([filled.target, ...this.chosen], state);
    if (!current()) return;
    Object.assign(this, { state: this.page.state, scene, image: answer && picture(answer.arrays.image, 0), labels: facts.labels || scene.labels });
    this.draw();
  }

  // The probabilities of classes that did not come with the first answer.
  async fetchColumns(classes, state) {
    const { lens } = this;
    if (!lens.alone) return;
    const missing = [...new Set(classes)].filter((c) => !lens.has(c));
    if (!this.page.source.live && missing.length) throw new Error("The probabilities of this class at every token are not in this page: use the app, or Python.");
    await Promise.all(missing.map(async (c) => lens.add(c, (await this.page.source.ask("lens", state, { part: c })).arrays.column)));
  }

  // All that a change of the state changes.
  draw() {
    const { facts, lens, scene, labels, state } = this;
    this.hover = null;
    const classes = labels.map((text, index) => [index, text]);
    if (this.offered !== labels) {
      this.offered = labels;
      this.target.offer(classes);
      this.add.select.replaceChildren(option("", "choose"), ...classes.map(([value, text]) => option(value, text)));
    }
    this.short = facts.stages.map((_, stage) => (stage ? String(stage - 1) : "emb"));
    this.layers.offer(facts.stages.map((name, stage) => [stage, name.replace(/^after /, "")]));
    this.target.select.value = state.target;
    this.layers.select.value = this.stage;
    this.prompts.show(scene.prompts, state.prompts, this.page.source.live);
    const answer = lens.readout[lens.stages - 1][facts.answer];
    this.last.textContent = `The last row is the model's own answer: ${labels[facts.answer]}, probability ${probable(answer)}, logit ${lens.logits.at(lens.stages - 1, facts.answer).toFixed(3)}.`;
    const high = Math.max(1e-6, ...range(lens.stages).flatMap((s) => range(lens.tokens).map((t) => lens.first(s, t)[1])));
    const [, columns] = scene.grid;
    this.table.draw({ stages: facts.stages, short: this.short, tokens: lens.tokens, columns, prefix: scene.flat ? lens.tokens : scene.prefix.length, top: (s, t) => lens.first(s, t), high, labels, target: state.target });
    this.bar.draw(SEQUENTIAL, [[0, "0"], [0.5, probable(high / 2)], [1, probable(high)]]);
    this.high = high;
    this.drawSmall();
    this.curveHigh = Math.min(1, 1.05 * Math.max(0.02, ...this.chosen.flatMap((c) => [...lens.readout.map((row) => row[c]), ...(lens.column(c) || [])])));
    const remove = (c) => this.page.set({ classes: this.chosen.filter((some) => some !== c).join(",") || undefined });
    this.curves.draw(this.chosen.map((c) => ({
      name: labels[c], values: lens.readout.map((row) => row[c]),
      button: this.chosen.length > 1 ? node("button", { type: "button", class: "pz-remove", "aria-label": `Remove ${labels[c]} from the curves`, onclick: () => remove(c) }, "×") : null,
    })), this.short, this.curveHigh);
    this.point();
    this.tabulate();
  }

  drawSmall() {
    const { facts, lens, scene, state } = this;
    const column = lens.column(state.target);
    this.maps.hidden = Boolean(scene.flat);
    this.mapHigh = Math.max(1e-6, ...column);
    this.mapBar.draw(SEQUENTIAL, [[0, "0"], [0.5, probable(this.mapHigh / 2)], [1, probable(this.mapHigh)]]);
    if (scene.flat) return;
    this.under.replaceChildren(this.image || "");
    if (this.small.children.length !== lens.stages) {
      this.thumbs = facts.stages.map((name, stage) => {
        const map = tokenMap(name, {});
        const button = node("button", { type: "button", title: name, onclick: () => this.page.set(this.placed(stage)) }, map.element, node("span", {}, stage ? `${stage - 1}` : "emb"));
        return { map, button };
      });
      this.small.replaceChildren(...this.thumbs.map(({ button }) => button));
    }
    this.thumbs.forEach(({ map, button }, stage) => {
      button.setAttribute("aria-pressed", String(stage === this.stage));
      map.draw({ scene: { grid: scene.grid, prefix: [] }, image: null, values: column.subarray(stage * lens.tokens + scene.prefix.length, (stage + 1) * lens.tokens), map: SEQUENTIAL, pixels: SEQUENTIAL_PIXELS, low: 0, high: this.mapHigh });
    });
  }

  // All that the cursor changes.
  point() {
    const began = performance.now();
    const { facts, lens, scene, state, labels } = this;
    const { stage, token } = this.place;
    const column = lens.column(state.target);
    const start = stage * lens.tokens;
    if (!scene.flat) { // first: it reads its width, which waits for a new layout once other elements have changed
      this.map.draw({
        scene, image: this.image, values: column.subarray(start, start + lens.tokens), map: SEQUENTIAL, pixels: SEQUENTIAL_PIXELS, low: 0, high: this.mapHigh,
        marked: token, format: probable,
      });
      said(this.mapTitle, `${labels[state.target]}, ${facts.stages[stage]}`);
    }
    this.table.show(stage, token);
    if (this.hover === null) this.table.reveal();
    const name = scene.flat ? `token ${token}` : tokenName(scene, token);
    const [best, probability] = lens.first(stage, token);
    const [whole, likely] = lens.whole(stage, 1)[0];
    said(this.words, `${facts.stages[stage][0].toUpperCase()}${facts.stages[stage].slice(1)}, ${name}${this.pinned ? " (pinned)" : ""}: alone it reads ${labels[best]} (${probable(probability)}), and ${labels[state.target]} with ${probable(column[start + token])}. The image reads ${labels[whole]} (${probable(likely)}).`);
    this.lists[0].show(lens.whole(stage, SHOWN), labels, state.target);
    this.lists[1].show(lens.top(stage, token), labels, state.target);
    this.curves.show(stage, (i) => this.aloneOver(this.chosen[i], token), probable);
    document.documentElement.dataset.prismaDrawMs = (performance.now() - began).toFixed(2);
  }

  aloneOver(c, token) {
    const column = this.lens.column(c);
    return column && range(this.lens.stages).map((stage) => column[stage * this.lens.tokens + token]);
  }

  tabulate() {
    const { facts, lens, labels, state } = this;
    if (!this.more.open || !this.state) return;
    const column = lens.column(state.target);
    const rows = facts.stages.map((name, stage) => {
      const [[whole, p], [best, q]] = [lens.whole(stage, 1)[0], lens.first(stage, state.token)];
      return [name, labels[whole], probable(p), labels[best], probable(q), probable(lens.readout[stage][state.target]), probable(column[stage * lens.tokens + state.token])];
    });
    const name = this.scene.flat ? `token ${state.token}` : tokenName(this.scene, state.token);
    const table = tableOf(["stage", "the image reads", "probability", `${name} alone reads`, "probability", `${labels[state.target]}, image`, `${labels[state.target]}, ${name}`], rows);
    this.more.replaceChildren(this.more.firstChild, node("div", { class: "pz-scroll", tabindex: 0, role: "group", "aria-label": "Numbers of the lens" }, table));
  }

  exported() {
    const { lens, state, facts } = this;
    const grid = [lens.stages, lens.tokens];
    const cells = range(lens.stages).flatMap((s) => range(lens.tokens).map((t) => lens.first(s, t)));
    const of = (axes, shape, values) => ({ axes, shape, values });
    return {
      name: "lens", title: Lens.TITLE, names: { stage: facts.stages, class: this.labels },
      numbers: {
        readout: of(["stage", "class"], [lens.stages, lens.classes], Float32Array.from(range(lens.stages).flatMap((s) => lens.logits.row(s)))),
        likeliest: of(["stage", "token"], grid, Int32Array.from(cells, ([c]) => c)),
        probability: of(["stage", "token"], grid, Float32Array.from(cells, ([, p]) => p)),
        map: of(["stage", "token"], grid, Float32Array.from(lens.column(state.target))),
      },
      svg: () => lensDrawing(this),
      code: `${facts.code || ""}probability, likeliest = tokens.max(-1)  # [stage, token]\nmap_of_class = tokens[..., ${state.target}]  # [stage, token]\n`,
    };
  }
}

function said(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

// The likeliest classes as bars, whose rows stay while their numbers change.
class Answers {
  constructor(title, choose) {
    this.rows = range(SHOWN).map(() => {
      const [fill, name, value] = ["pz-fill", "pz-name", "pz-value"].map((kind) => node("span", { class: kind }));
      const row = { fill, name, value, chosen: null };
      row.button = node("button", { type: "button", onclick: () => choose(row.chosen) }, fill, name, value);
      row.element = node("li", {}, row.button);
      return row;
    });
    this.element = node("div", {}, node("h2", {}, title), node("ol", { class: "pz-top", "aria-label": title }, ...this.rows.map((row) => row.element)));
  }

  show(answers, labels, target) {
    this.rows.forEach((row, i) => {
      row.element.hidden = i >= answers.length;
      if (i >= answers.length) return;
      const [c, value] = answers[i];
      row.chosen = c;
      row.fill.style.transform = `scaleX(${value.toFixed(4)})`;
      said(row.name, labels[c]);
      said(row.value, probable(value));
      row.button.setAttribute("aria-pressed", String(c === target));
    });
  }
}

// The classes of a CLIP, which the visitor types.
class Prompts {
  constructor(use) {
    this.text = node("textarea", { rows: 5, maxlength: 4000, spellcheck: "false", "aria-label": "Prompts, one in each line" });
    const button = node("button", { type: "button", onclick: () => use(this.text.value.trim()) }, "Use these prompts");
    this.element = node("details", { class: "pz-prompts", hidden: true }, node("summary", {}, "The classes are prompts: type your own"), this.text, button);
  }

  show(known, asked, live) {
    this.element.hidden = !live || known === null || known === undefined;
    const words = asked || known || "";
    if (this.shown === words) return;
    this.shown = words;
    this.text.value = words;
  }
}
