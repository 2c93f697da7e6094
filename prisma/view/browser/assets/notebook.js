// The output of a notebook's cell: one figure over the numbers that are in it. See prisma/view/browser/notebook.py.
import { choice, node, range } from "./core.js";
import { Decompose } from "./decompose.js";
import { DEFAULTS } from "./state.js";
import { exportTools } from "./export.js";
import { Lens } from "./lens.js";
import { Maps } from "./maps.js";
import { unpack } from "./pack.js";

const SHOWS = { lens: Lens, decompose: Decompose, maps: Maps };

// Stands for the page: the same figures, one state, and numbers that are all here.
class CellOutput {
  constructor(root, { facts, arrays }) {
    Object.assign(this, { root, facts, arrays, embedded: true, turn: 0, answers: new Map() });
    this.model = { name: facts.title, prisma: facts.prisma, ...facts.model };
    this.state = { ...DEFAULTS, layer: Math.max(0, (this.model.layers || 1) - 1) };
    this.source = { live: false, ask: async (what) => this.numbers(what) };
    this.trouble = node("p", { class: "pz-trouble", role: "alert", hidden: true });
    const element = node("div", { class: "pz-view" });
    const images = choice("Image", range(facts.images?.length || 0).map((i) => [i, i]), (img) => this.set({ img, target: undefined }));
    images.element.hidden = !(facts.images?.length > 1);
    this.figure = new SHOWS[facts.figure](element, this);
    const settings = node("details", { class: "pz-more" }, node("summary", {}, "Settings"), node("p", { class: "pz-settings" }, facts.settings));
    root.replaceChildren(node("p", { class: "pz-output-title" }, facts.title), images.element, ...facts.said.map((text) => node("p", { class: "pz-quiet" }, text)),
      this.trouble, element, exportTools(this, this.figure), settings);
    this.show();
  }

  // What the server would answer.
  numbers(what) {
    if (what !== this.facts.figure) throw new Error("This is not in the output of a cell.");
    if (!this.facts.images) return { facts: this.facts, arrays: this.arrays };
    const { img } = this.state;
    if (!this.answers.has(img)) {
      const mine = Object.entries(this.arrays).filter(([name]) => name.startsWith(`${img}/`)).map(([name, array]) => [name.slice(img.length + 1), array]);
      this.answers.set(img, { facts: this.facts.images[Number(img)], arrays: Object.fromEntries(mine) });
    }
    return this.answers.get(img);
  }

  set(values) {
    this.before = this.state;
    this.state = { ...this.state, ...values };
    return this.show();
  }

  fill(values) {
    this.state = { ...this.state, ...values };
  }

  async show() {
    this.turn += 1;
    const mine = this.turn;
    this.trouble.hidden = true;
    try {
      await this.figure.update(this.state, this.model, () => mine === this.turn);
    } catch (error) {
      if (this.before) this.state = this.before; // the figure still shows it
      this.trouble.textContent = error.message;
      this.trouble.hidden = false;
    }
    this.root.dataset.ready = "1";
  }
}

// Keys are the figure's while it has the focus. JupyterLab looks at them first, at the document: there `d` twice deletes a
// cell and `0` twice ends the kernel. It leaves alone what has this attribute. What is typed with Ctrl stays JupyterLab's.
function keepKeys(event) {
  if (!event.target.closest?.(".pz-notebook")) return;
  event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey || event.altKey));
}
if (!window.prismaKeepsKeys) window.addEventListener("keydown", keepKeys, true); // each output has this script
window.prismaKeepsKeys = true;

// Draws every output that is not drawn yet. A notebook may run the script before it puts the output into the page.
async function drawOutputs(tries) {
  for (const root of document.querySelectorAll(".pz-notebook[data-pack]")) {
    const bytes = Uint8Array.from(atob(root.dataset.pack), (letter) => letter.charCodeAt(0));
    root.removeAttribute("data-pack");
    try {
      new CellOutput(root, await unpack(new Blob([bytes])));
    } catch (error) {
      root.replaceChildren(node("p", {}, `This figure could not be drawn: ${error.message}`));
    }
  }
  if (tries) setTimeout(() => drawOutputs(tries - 1), 100);
}
drawOutputs(20);
