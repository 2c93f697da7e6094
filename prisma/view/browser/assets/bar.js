// The top of the page: its name, and what concerns the page as a whole.
import { drawn, node } from "./core.js";
import { Gallery } from "./gallery.js";

const THEMES = ["auto", "light", "dark"];

export class Bar {
  constructor(page) {
    this.page = page;
    this.said = node("span", { class: "pz-quiet", role: "status" });
    const button = (text, onclick, more = {}) => node("button", { type: "button", onclick, ...more }, text);
    this.compare = button("Compare", () => page.compare.toggle(), { "aria-pressed": false });
    this.theme = button("Theme", () => this.nextTheme());
    this.gallery = new Gallery(page);
    this.about = node("dialog", { class: "pz-dialogue pz-about", "aria-label": "About this model" });
    this.element = node("div", { class: "pz-top-bar" }, mark(), node("h1", {}, "Prisma"),
      node("p", { class: "pz-quiet" }, "See how a vision transformer thinks, at any step of its training."),
      node("div", { class: "pz-own" }, this.said, button("Findings", () => this.gallery.open()), button("About this model", () => this.tell()),
        this.compare, button("Copy link", () => this.copy()), this.theme),
      this.gallery.element, this.about, this.gallery.note);
    this.setTheme(remembered());
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

  nextTheme() {
    this.setTheme(THEMES[(THEMES.indexOf(this.chosen) + 1) % THEMES.length]);
  }

  setTheme(name) {
    this.chosen = name;
    const isDark = name === "dark" || (name === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    document.body.classList.toggle("dark", isDark);
    document.documentElement.style.colorScheme = isDark ? "dark" : "light";
    this.theme.textContent = `Theme: ${name}`;
    try { localStorage.setItem("prisma-theme", name); } catch { /* a page from a disk may have no storage */ }
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

function remembered() {
  try {
    const found = localStorage.getItem("prisma-theme");
    return THEMES.includes(found) ? found : "auto";
  } catch {
    return "auto";
  }
}

function mark() {
  const line = (d, stroke) => drawn("path", { d, stroke, "stroke-width": 1.8, fill: "none", "stroke-linejoin": "round" });
  return drawn("svg", { viewBox: "0 0 40 36", width: 34, height: 31, "aria-hidden": "true" },
    line("M1 21 15 17", "currentColor"), line("M26 17 39 12", "#c2503f"), line("M26.5 19 39 18.5", "#c99a2e"), line("M27 21 39 25", "#3d6fb5"), line("M20 3 36 33H4Z", "currentColor"));
}
