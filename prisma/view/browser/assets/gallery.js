// Findings as links: each is a state of the page, with the words that say what to look at.
import { node } from "./core.js";

export class Gallery {
  constructor(page) {
    this.page = page;
    this.element = node("dialog", { class: "pz-dialogue", "aria-label": "Findings" });
  }

  open() {
    this.element.showModal();
  }
}
