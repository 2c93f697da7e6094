// What every page has at its top: the mark, and a button for light and dark, which a browser remembers.
import { drawn, node } from "./core.js";

const THEMES = ["auto", "light", "dark"];

export function themeButton() {
  let chosen = remembered();
  const element = node("button", { type: "button", onclick: () => show(THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length]) });
  const show = (name) => {
    chosen = name;
    const isDark = name === "dark" || (name === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    document.body.classList.toggle("dark", isDark);
    document.documentElement.style.colorScheme = isDark ? "dark" : "light";
    element.textContent = `Theme: ${name}`;
    try { localStorage.setItem("prisma-theme", name); } catch { /* a page from a disk may have no storage */ }
  };
  show(chosen);
  return element;
}

function remembered() {
  try {
    const found = localStorage.getItem("prisma-theme");
    return THEMES.includes(found) ? found : "auto";
  } catch {
    return "auto";
  }
}

export function mark() {
  const line = (d, stroke) => drawn("path", { d, stroke, "stroke-width": 1.8, fill: "none", "stroke-linejoin": "round" });
  return drawn("svg", { viewBox: "0 0 40 36", width: 34, height: 31, "aria-hidden": "true" },
    line("M1 21 15 17", "currentColor"), line("M26 17 39 12", "#c2503f"), line("M26.5 19 39 18.5", "#c99a2e"), line("M27 21 39 25", "#3d6fb5"), line("M20 3 36 33H4Z", "currentColor"));
}
