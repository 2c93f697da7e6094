// What was found with these models, each as a state of the page; one after the other they are a tour.
import { node } from "./core.js";
import { DEFAULTS } from "./state.js";

export class Gallery {
  constructor(page) {
    Object.assign(this, { page, findings: [], at: null });
    const button = (text, onclick) => node("button", { type: "button", onclick }, text);
    this.cards = node("div", { class: "pz-findings" });
    this.element = node("dialog", { class: "pz-dialogue", "aria-label": "Findings" }, node("h2", {}, "Findings"), this.cards,
      node("div", { class: "pz-own" }, this.begin = button("Take the tour", () => this.show(0)), button("Close", () => this.element.close())));
    this.title = node("strong", {});
    this.text = node("p", {});
    this.next = button("Next", () => (this.at + 1 < this.findings.length ? this.show(this.at + 1) : this.end()));
    this.note = node("aside", { class: "pz-note", "aria-label": "Tour", "aria-live": "polite", hidden: true }, this.title, this.text,
      node("div", { class: "pz-own" }, this.next, button("End the tour", () => this.end())));
    page.source.listed().then(({ findings }) => this.offer(findings || []), () => {});
  }

  offer(findings) {
    this.findings = findings;
    this.begin.hidden = !findings.length;
    this.cards.replaceChildren(...findings.map(({ title, text }, i) => node("section", {}, node("h3", {}, title), node("p", {}, text),
      node("div", { class: "pz-own" }, node("button", { type: "button", onclick: () => this.show(i) }, "Look at it")))));
    if (!findings.length) this.cards.replaceChildren(node("p", {}, "There are no findings about these models; `prisma app` without a hub shows mice that have some."));
  }

  open() {
    this.element.showModal();
  }

  show(i) {
    this.at = i;
    const { title, text, state } = this.findings[i];
    this.title.textContent = `${i + 1} of ${this.findings.length}: ${title}`;
    this.text.textContent = text;
    this.next.textContent = i + 1 < this.findings.length ? "Next" : "Done";
    this.note.hidden = false;
    this.element.close();
    const none = Object.fromEntries(Object.keys(this.page.state).map((key) => [key, undefined]));
    this.page.set({ ...none, ...DEFAULTS, ...state });
  }

  end() {
    this.note.hidden = true;
  }
}
