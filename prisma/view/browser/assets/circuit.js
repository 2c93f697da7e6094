// The circuit of a pair: the edges that alone give the metric, and how good it is beside random circuits.
import { brief, node, signed } from "./core.js";
import { circuitDrawing } from "./circuit_drawing.js";
import { palette, tableOf } from "./drawing.js";

const EDGES_LISTED = 30;
const CIRCUIT_FIGURES = {
  faithfulness: ["Faithfulness: the share of the metric that the circuit alone gives (1 is best)", "of random circuits with as many edges"],
  completeness: ["Completeness: 1 means that nothing outside it contributes", ""],
  cpr: ["CPR: faithfulness over the best edges of all sizes (larger is better)", "of random circuits of these sizes"],
  cmd: ["CMD: its distance from 1 over all sizes (0 is best)", "of random circuits of these sizes"],
};

export class Circuit {
  constructor(page) {
    Object.assign(this, { page, found: null });
    this.find = node("button", { type: "button", onclick: () => page.set({ circuit: "1" }) }, "Find the circuit");
    this.close = node("button", { type: "button", onclick: () => page.set({ circuit: undefined }) }, "Close");
    this.words = node("p", { class: "pz-words", role: "status" });
    this.holder = node("div", { class: "pz-drawing pz-circuit" });
    this.figures = node("div", { class: "pz-scroll pz-steer", tabindex: 0, role: "group", "aria-label": "Figures of the circuit" });
    this.table = node("div", {});
    this.more = node("details", { class: "pz-more", ontoggle: () => this.tabulate() }, node("summary", {}, "Show the edges as table"), this.table);
    this.shown = node("div", {}, this.figures, node("figure", { class: "pz-figure" }, node("figcaption", {}, "Red edges raise the metric, blue edges lower it"), this.holder), this.more);
    this.element = node("div", { class: "pz-detail", role: "group", "aria-label": "Circuit" },
      node("div", { class: "pz-tools" }, node("h2", {}, "Circuit"), this.find, this.close),
      node("p", { class: "pz-help" }, "Which few edges between the embedding, heads, MLPs and logits are enough? In the circuit's run these carry what they carry in the clean run, all others what they carry in the corrupt run. It is found for this pair alone: on other pairs it may be another."),
      this.words, this.shown);
  }

  // Comes after the rest: a search takes many runs.
  async update(state, isQuick, current) {
    this.element.hidden = !this.page.source.live || !(isQuick || state.circuit);
    const asked = Boolean(state.circuit) && this.page.source.live;
    [this.find.hidden, this.close.hidden, this.shown.hidden, this.words.hidden] = [asked, !asked, true, !asked];
    this.found = null;
    if (!asked) return;
    this.words.textContent = "Edges are scored, and circuits are run exactly: some seconds, up to a minute for the larger mice.";
    const found = await this.page.source.ask("patching", state, { part: 3 }).catch((error) => ({ error }));
    if (!current()) return;
    if (found.error) this.words.textContent = found.error.message;
    else this.draw(found);
  }

  draw({ facts, arrays }) {
    const { senders, receivers } = facts;
    const places = arrays.edges.values;
    const edges = Array.from(arrays.scores.values, (score, i) => ({ sender: senders[places[2 * i]], receiver: receivers[places[2 * i + 1]], score, removal: arrays.removal.values[i] }));
    const of = Object.fromEntries(facts.figures.map((figure) => [figure.name, figure]));
    const chance = of.faithfulness.random;
    Object.assign(this, { found: { facts, edges } });
    this.shown.hidden = false;
    this.words.textContent = `${edges.length} of ${facts.count.toLocaleString("en")} edges give ${brief(of.faithfulness.value)} of ${facts.metric}; ${facts.draws} random circuits of as many edges give ${brief(chance[1])} on average (${brief(chance[0])} to ${brief(chance[2])}).`;
    const rows = facts.figures.map(({ name, value, random }) => [CIRCUIT_FIGURES[name][0], brief(value), random ? `${brief(random[1])} (${brief(random[0])} to ${brief(random[2])})` : ""]);
    this.figures.replaceChildren(tableOf(["", "this circuit", "random circuits: mean (least to most)"], rows));
    this.holder.replaceChildren(this.svg());
    this.tabulate();
  }

  svg() {
    const { facts, edges } = this.found;
    return circuitDrawing({ senders: facts.senders, edges, colours: palette(this.element), title: `Circuit of ${edges.length} edges; the table has their names` });
  }

  tabulate() {
    if (!this.more.open || !this.found) return;
    const strongest = [...this.found.edges].sort((a, b) => Math.abs(b.score) - Math.abs(a.score)).slice(0, EDGES_LISTED);
    this.table.replaceChildren(node("div", { class: "pz-scroll", tabindex: 0, role: "group", "aria-label": "Edges of the circuit" }, tableOf(["edge", "change when it is replaced, estimated", "faithfulness lost without it, exact"], strongest.map(({ sender, receiver, score, removal }) => [`${sender} → ${receiver}`, signed(score), signed(removal)]))));
  }

  // What it adds to the files of patching: arrays, and lines of Python.
  exported() {
    if (!this.found) return null;
    const { facts, edges } = this.found;
    const shape = [facts.senders.length, facts.receivers.length];
    const scores = new Float32Array(shape[0] * shape[1]);
    edges.forEach(({ sender, receiver, score }) => { scores[facts.senders.indexOf(sender) * shape[1] + facts.receivers.indexOf(receiver)] = score; });
    return { numbers: { circuit: { axes: ["sender", "receiver"], shape, values: scores } }, names: { sender: facts.senders, receiver: facts.receivers }, code: facts.more, svg: this.svg() };
  }
}
