// What one patch changes, and what is left when some heads hold their mean.
import { brief, colourBar, DIVERGING, DIVERGING_PIXELS, node, picture, range, SEQUENTIAL } from "./core.js";
import { Numbers } from "./pack.js";
import { Cells } from "./patch_cells.js";
import { decimals } from "./patch_runs.js";
import { tokenMap, tokenName } from "./tokens.js";

export const percentOf = (value) => `${(100 * value).toFixed(1)} %`;

// A table of classes with their probability in some runs: columns [[key, heading], ...].
export function patchClasses(name, columns) {
  const body = node("tbody", {});
  const head = node("tr", {}, node("th", { scope: "col" }, "class"), ...columns.map(([, text]) => node("th", { scope: "col" }, text)));
  const element = node("table", { class: "pz-classes", "aria-label": name }, node("thead", {}, head), body);
  const draw = (classes, cell) => body.replaceChildren(...classes.map((entry) => node("tr", {},
    node("th", { scope: "row" }, entry.label),
    ...columns.map(([key]) => node("td", {}, node("span", { class: "pz-fill", style: `width:${100 * entry[key]}%` }), node("span", { class: "pz-value" }, cell(entry, key)))))));
  return { element, draw };
}

export class PatchDetail {
  constructor(page) {
    this.page = page;
    this.words = node("p", { class: "pz-words", role: "status" });
    this.classes = patchClasses("Class probabilities", [["before", "without"], ["after", "patched"], ["source", "other run"]]);
    this.moved = new Cells("Attention that moved", { over: (i) => this.showHead(i), out: () => this.showHead(this.strongest), pick: (i) => this.showHead(i) });
    this.map = tokenMap("Change of attention", {});
    this.bar = colourBar("change of attention weight");
    this.movedWords = node("p", { class: "pz-quiet", role: "status" });
    this.attention = node("div", { class: "pz-pair pz-moved" },
      node("figure", { class: "pz-figure" }, node("figcaption", {}, "Attention that moved, layer by head, in %"), this.moved.element, this.movedWords),
      node("figure", { class: "pz-figure" }, node("figcaption", {}, "Where to, in one head"), this.map.element, this.bar.element));
    const close = node("button", { type: "button", onclick: () => page.set({ cell: undefined }) }, "Close");
    this.element = node("div", { class: "pz-detail", role: "group", "aria-label": "What one patch changes", hidden: true },
      node("div", { class: "pz-tools" }, node("h2", {}, "What this patch changes"), close), this.words, this.classes.element, this.attention);
  }

  // The request for the state's cell; null without one.
  ask(state) {
    if (!state.cell || !this.page.source.live) return null;
    return this.page.source.ask("patching", state, { part: 1, cell: state.cell, layer: state.layer, [state.cell]: state[state.cell] ?? 0 });
  }

  draw(found, scene, image, sentence) {
    this.element.hidden = !found;
    if (!found) return;
    Object.assign(this, { scene, facts: found.facts, image });
    const { runs, recovered } = found.facts;
    this.words.textContent = sentence(found.facts.cell, runs.after, recovered, "exact");
    this.classes.draw(found.facts.classes, (entry, key) => percentOf(entry[key]));
    this.attention.hidden = !found.arrays.moved;
    if (!found.arrays.moved) return;
    const moved = new Numbers(found.arrays.moved);
    this.rows = new Numbers(found.arrays.rows);
    this.values = range(scene.layers).flatMap((layer) => moved.row(layer));
    const high = Math.max(1e-6, ...this.values);
    this.strongest = this.values.indexOf(Math.max(...this.values));
    this.moved.draw({ rows: scene.layers, columns: scene.heads, values: this.values, map: SEQUENTIAL, low: 0, high, exact: null, marked: null, format: (value) => (100 * value).toFixed(1) });
    this.showHead(this.strongest);
  }

  showHead(index) {
    const { scene } = this;
    const [layer, head] = [Math.floor(index / scene.heads), index % scene.heads];
    const row = this.rows.row(layer, head);
    const high = Math.max(1e-6, ...row.map(Math.abs));
    this.map.draw({ scene, image: this.image, values: row, map: DIVERGING, pixels: DIVERGING_PIXELS, low: -high, high, format: (value) => decimals(value, 3) });
    this.bar.draw(DIVERGING, [[0, `-${brief(high)}`], [0.5, "0: as before"], [1, `+${brief(high)}`]]);
    const [most, least] = [row.indexOf(Math.max(...row)), row.indexOf(Math.min(...row))];
    this.movedWords.textContent = `Layer ${layer}, head ${head}: ${percentOf(this.values[index])} of its attention moved. What ${this.facts.query} reads: most gained by ${tokenName(scene, most)} (+${brief(row[most])}), most lost by ${tokenName(scene, least)} (${brief(row[least])}).`;
  }
}

// "0.3,1.2" -> Set of indices into [layer, head], and back.
export const ablatedHeads = (text, heads) => new Set((text || "").split(",").filter(Boolean).map((part) => {
  const [layer, head] = part.split(".").map(Number);
  return layer * heads + head;
}));
export const ablatedText = (chosen, heads) => [...chosen].sort((a, b) => a - b).map((i) => `${Math.floor(i / heads)}.${i % heads}`).join(",");

export class Ablating {
  constructor(page) {
    this.page = page;
    this.words = node("p", { class: "pz-words", role: "status" });
    this.cells = new Cells("Heads to ablate", { over: (i) => this.say(i), out: () => this.say(null), pick: (i) => this.toggle(i) });
    this.classes = patchClasses("Classes of this image", [["before", "all heads"], ["after", "ablated"]]);
    const none = node("button", { type: "button", onclick: () => page.set({ ablate: undefined }) }, "Restore all");
    this.element = node("div", { class: "pz-detail", role: "group", "aria-label": "Ablate heads" },
      node("div", { class: "pz-tools" }, node("h2", {}, "Ablate heads"), none),
      node("p", { class: "pz-help" }, "Choose heads: each then holds, at every token, its mean over reference images. What is left of the answer, and of the accuracy over the task?"),
      this.words,
      node("div", { class: "pz-pair" }, node("figure", { class: "pz-figure" }, node("figcaption", {}, "Layer by head; a cross is an ablated head"), this.cells.element), this.classes.element));
  }

  ask(state) {
    if (!state.ablate || !this.page.source.live) return null;
    return this.page.source.ask("patching", state, { part: 2, ablate: state.ablate });
  }

  toggle(index) {
    const chosen = ablatedHeads(this.page.state.ablate, this.scene.heads);
    if (!chosen.delete(index)) chosen.add(index);
    this.page.set({ ablate: ablatedText(chosen, this.scene.heads) || undefined });
  }

  // `colours` as Cells.draw takes them: the head map, on which heads are chosen.
  draw(found, state, scene, colours) {
    this.element.hidden = !this.page.source.live;
    Object.assign(this, { scene, found, chosen: ablatedHeads(state.ablate, scene.heads) });
    this.cells.draw({ ...colours, chosen: this.chosen, marked: null });
    this.classes.element.hidden = !found;
    if (found) this.classes.draw(found.facts.classes, (entry, key) => `${percentOf(entry[key])} (logit ${brief(entry.logits[key === "before" ? 0 : 1])})`);
    this.say(null);
  }

  say(index) {
    if (index !== null) {
      const [layer, head] = [Math.floor(index / this.scene.heads), index % this.scene.heads];
      this.words.textContent = `Layer ${layer}, head ${head} ${this.chosen.has(index) ? "is ablated: choose it to restore it" : "is as it was: choose it to ablate it"}.`;
      return;
    }
    if (!this.found) {
      this.words.textContent = "No head is ablated.";
      return;
    }
    const { heads, accuracy, metric, runs, reference } = this.found.facts;
    const count = `${heads.length} of ${this.scene.layers * this.scene.heads} heads hold their mean over ${reference}`;
    const task = accuracy ? ` Accuracy over ${accuracy.n} test images: ${percentOf(accuracy.before)} without, ${percentOf(accuracy.after)} with the ablation.` : " There are no test images to measure the accuracy on.";
    this.words.textContent = `${count}.${task} ${metric} of this image: ${brief(runs.before)} without, ${brief(runs.after)} with it.`;
  }
}
