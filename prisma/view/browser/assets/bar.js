// The top of the page: its name, and what concerns the page as a whole.
import { node } from "./core.js";
import { Gallery } from "./gallery.js";
import { mark, themeButton } from "./theme.js";

export class Bar {
  constructor(page) {
    this.page = page;
    this.said = node("span", { class: "pz-quiet", role: "status" });
    const button = (text, onclick, more = {}) => node("button", { type: "button", onclick, ...more }, text);
    this.compare = button("Compare", () => page.compare.toggle(), { "aria-pressed": false });
    this.gallery = new Gallery(page);
    this.about = node("dialog", { class: "pz-dialogue pz-about", "aria-label": "About this model" });
    this.element = node("div", { class: "pz-top-bar" }, mark(), node("h1", {}, "Prisma"),
      node("p", { class: "pz-quiet" }, "See how a vision transformer thinks, at any step of its training."),
      node("div", { class: "pz-own" }, this.said, button("Findings", () => this.gallery.open()), button("About this model", () => this.tell()),
        this.compare, button("Copy link", () => this.copy()), themeButton()),
      this.gallery.element, this.about, this.gallery.note);
  }

  update() {
    this.compare.setAttribute("aria-pressed", this.page.compare.open);
  }

  async copy() {
    const { href } = this.page.address;
    try {
      await navigator.clipboard.writeText(href);
      this.said.textContent = this.page.state.img.startsWith("sha256:") ? "Copied; who opens it must upload the same image." : "Link copied.";
    } catch {
      this.said.textContent = href; // the browser does not allow it: the link to copy by hand
    }
  }

  // The model's card, as text, and what is known of it.
  tell() {
    const { model } = this.page;
    if (!model) return;
    const paragraphs = (model.card || "This model has no card here.").split(/\n{2,}/).map((text) => node("pre", { class: "pz-card-text" }, text));
    this.about.replaceChildren(node("h2", {}, model.name), node("p", { class: "pz-quiet" }, model.rev ? `commit ${model.rev}` : "no commit"),
      ...paragraphs, node("button", { type: "button", onclick: () => this.about.close() }, "Close"));
    this.about.showModal();
  }
}
