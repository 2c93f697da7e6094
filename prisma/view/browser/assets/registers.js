// Register neurons: norms of patches as they are, and when these neurons are moved to an empty token; with controls.
import { brief, choice, colourBar, node, picture, range, SEQUENTIAL, SEQUENTIAL_PIXELS } from "./core.js";
import { Numbers } from "./pack.js";
import { tableOf } from "./drawing.js";
import { tokenMap } from "./tokens.js";

const REGISTER_FACTORS = [["", "none"], ["1.5", "1.5 times the median norm"], ["2", "2 times the median norm"], ["3", "3 times the median norm"], ["5", "5 times the median norm"]];
const REGISTER_COUNTS = [1, 3, 10, 30, 100];
const WAY_WORDS = { "as it is": "as it is", "empty token": "an empty token added", "register neurons": "register neurons moved to it", "random neurons": "random neurons moved to it" };
const NEURONS_LISTED = 12;
const LAST_TICK = 0.7; // of the colour bar: beyond it the label of a cutoff would lie over the last one
const asShare = (value) => `${(100 * value).toFixed(1)}\u00a0%`; // no line ends before the sign

export class Registers {
  constructor(page, open) {
    Object.assign(this, { page, open, found: null });
    this.factor = choice("Patches above", REGISTER_FACTORS, (outlying) => page.set({ outlying: outlying || undefined }));
    this.layers = choice("after layer", [], (after) => page.set({ after: Number(after) }));
    this.count = choice("Neurons moved", REGISTER_COUNTS.map((count) => [count, count]), (moved) => page.set({ moved: Number(moved) }));
    this.words = node("p", { class: "pz-words", role: "status" });
    this.images = node("div", { class: "pz-lit-images pz-registers" });
    this.bar = colourBar("norm of a patch");
    this.table = node("div", { class: "pz-scroll pz-steer pz-ways", tabindex: 0, role: "group", "aria-label": "Patches above, by run" });
    this.neurons = node("ol", { class: "pz-top pz-units", "aria-label": "Register neurons" });
    this.shown = node("div", {}, this.images, this.bar.element, this.table, node("h2", { class: "pz-own-latents" }, "The neurons, by their mean size at these patches"), this.neurons);
    this.element = node("div", { class: "pz-detail", role: "group", "aria-label": "Register neurons" },
      node("div", { class: "pz-tools" }, node("h2", {}, "Register neurons"), this.factor.element, this.layers.element, this.count.element),
      node("p", { class: "pz-help" }, "In large models a few patches have a norm far above that of the others. Which neurons make them? Those that answer there are found; then an empty token is added, and what they do at the patches they do at that token instead. They make such patches if these are ordinary then, and are not with random neurons moved. Small models often have no such patches."),
      this.words, this.shown);
  }

  async update(state, scene, current) {
    const { source } = this.page;
    this.element.hidden = !source.live;
    if (!source.live) return;
    this.layers.offer(range(scene.layers).map((i) => [i, i]));
    this.factor.select.value = state.outlying ?? "";
    this.layers.select.value = state.after ?? scene.layers - 1;
    this.count.offer([...new Set([...REGISTER_COUNTS, state.moved ?? 10])].sort((a, b) => a - b).map((count) => [count, count]));
    this.count.select.value = state.moved ?? 10;
    const asked = Boolean(state.outlying);
    [this.shown.hidden, this.words.hidden, this.layers.element.hidden, this.count.element.hidden] = [true, !asked, !asked, !asked];
    Object.assign(this, { found: null, scene });
    if (!asked) return;
    this.words.textContent = "Neurons are found and moved: some seconds.";
    const { outlying, after, moved } = state;
    const given = Object.fromEntries(Object.entries({ outlying, after, moved }).filter(([, value]) => value !== undefined));
    const found = await source.ask("units", { ...state, units: undefined, layer: undefined, head: undefined, number: undefined }, { part: 0, ...given }).catch((error) => ({ error }));
    if (!current()) return;
    if (found.error) this.words.textContent = found.error.message;
    else this.draw(found);
  }

  draw({ facts, arrays }) {
    const { ways, above, answers, counts, share, same, neurons } = facts;
    const norms = new Numbers(arrays.norms);
    const most = Math.max(...norms.row());
    const image = picture(arrays.image, 0);
    this.found = { facts, arrays };
    this.shown.hidden = false;
    const maps = ways.map((way) => tokenMap(`Norms of patches, ${WAY_WORDS[way]}`, {}));
    this.images.replaceChildren(...maps.map(({ element }, i) => node("figure", {}, element,
      node("figcaption", {}, node("span", {}, WAY_WORDS[ways[i]]), node("span", { class: "pz-quiet" }, `${above[i]} patches above${answers ? `, answers ${answers[i]}` : ""}`)))));
    const alone = { ...this.scene, prefix: [] }; // the maps are of patches
    maps.forEach(({ draw }, i) => draw({ scene: alone, image, values: norms.row(i), map: SEQUENTIAL, pixels: SEQUENTIAL_PIXELS, low: 0, high: most, format: brief }));
    const outlying = facts.cutoff < most ? [[facts.cutoff / most, `above ${brief(facts.cutoff)}`]] : []; // else no patch is
    const largest = outlying.length && outlying[0][0] > LAST_TICK ? [] : [[1, brief(most)]];
    this.bar.draw(SEQUENTIAL, [[0, "0"], ...outlying, ...largest]);
    this.words.textContent = `${above[0]} of ${norms.row(0).length} patches of this image have a norm above ${brief(facts.cutoff)} after layer ${facts.state.after}. With ${neurons.length} register neuron${neurons.length === 1 ? "" : "s"} moved: ${above[2]}; with as many random ones: ${above[3]}.`;
    const rows = ways.map((way, i) => [WAY_WORDS[way], String(above[i]), `${asShare(share[i][0])} (${asShare(share[i][1])} to ${asShare(share[i][2])})`, ...(same ? [asShare(same[i])] : [])]);
    this.table.replaceChildren(tableOf(["run", "patches above, this image", `share in ${counts[1]} other images (95 % interval)`, ...(same ? ["same answer as it is"] : [])], rows));
    this.neurons.replaceChildren(...neurons.slice(0, NEURONS_LISTED).map(([layer, number, score, elsewhere]) => node("li", {},
      node("button", { type: "button", onclick: () => this.open(layer, number) }, node("span", { class: "pz-fill", style: `transform:scaleX(${score / neurons[0][2]})` }),
        node("span", { class: "pz-name" }, `layer ${layer}, neuron ${number}`), node("span", { class: "pz-value" }, `${brief(score)}, elsewhere ${brief(elsewhere)}`)))));
  }

  // What it adds to the files of units.
  exported() {
    if (!this.found) return null;
    const { facts, arrays } = this.found;
    const { shape, values } = arrays.norms;
    return { numbers: { norms: { axes: ["way", "patch"], shape: [...shape], values: Float32Array.from(values) } }, names: { way: facts.ways }, code: facts.more };
  }
}
