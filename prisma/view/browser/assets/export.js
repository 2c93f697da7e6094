// Takes a figure along: as a picture, as numbers, and as the Python that computes them. All files are made in the page,
// and each says which model, revision, training step and image it shows, Prisma's version, and the link.
import { npy, npyText, pngWithText, zipped } from "./archive.js";
import { drawn, node } from "./core.js";
import { palette, svgString, svgText } from "./drawing.js";

const FOOT = 34; // pixels below a picture, for what it shows
const SHARPNESS = 2; // pixels of a PNG for each of the drawing

// What a file says of itself.
export function originOf(page, { title, name }) {
  const { model, state } = page;
  return {
    title, view: name, model: state.model ?? model.name, rev: state.rev ?? null, step: state.step ?? null, image: state.img ?? null,
    prisma: model.prisma ?? null, link: page.embedded ? null : page.address.href,
  };
}

// "lab/digits · step 40 · image 0": one line of it for people.
function lineOf(origin) {
  const parts = [origin.model, origin.rev && `commit ${origin.rev.slice(0, 8)}`, origin.step !== null && `step ${origin.step}`, origin.image !== null && `image ${origin.image}`.slice(0, 24), `Prisma ${origin.prisma ?? ""}`.trim()];
  return parts.filter(Boolean).join(" · ");
}

// A figure's SVG with its background, a foot that says what it shows, and the same as metadata.
export function footed(text, origin, colours) {
  const svg = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  if (svg.nodeName !== "svg") throw new Error("This figure could not be drawn as a file.");
  const [x, y, width, height] = svg.getAttribute("viewBox").split(/[\s,]+/).map(Number);
  svg.setAttribute("viewBox", `${x} ${y} ${width} ${height + FOOT}`);
  svg.setAttribute("width", width);
  svg.setAttribute("height", height + FOOT);
  const about = drawn("metadata", {}, JSON.stringify(origin));
  const back = drawn("rect", { x, y, width, height: height + FOOT, fill: colours.paper });
  svg.prepend(drawn("title", {}, `${origin.title}: ${lineOf(origin)}`), about, back);
  svg.append(svgText(x + 8, y + height + FOOT - 12, lineOf(origin), { fill: colours.quiet, size: 11 }));
  return svg;
}

// An SVG as the bytes of a PNG.
export async function rasterised(svg) {
  const url = URL.createObjectURL(new Blob([svgString(svg)], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = node("canvas", { width: SHARPNESS * Number(svg.getAttribute("width")), height: SHARPNESS * Number(svg.getAttribute("height")) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
    if (!blob) throw new Error("This figure is too large for a PNG: take the SVG.");
    return new Uint8Array(await blob.arrayBuffer());
  } finally {
    URL.revokeObjectURL(url);
  }
}

// The numbers as prisma's results are saved: the arrays by name, `__axes__` and `__metadata__` as JSON.
export function npzOf(numbers, origin) {
  const arrays = Object.entries(numbers).map(([name, array]) => [`${name}.npy`, npy(array)]);
  const axes = Object.fromEntries(Object.entries(numbers).map(([name, array]) => [name, array.axes]));
  return zipped({ ...Object.fromEntries(arrays), "__axes__.npy": npyText(JSON.stringify(axes)), "__metadata__.npy": npyText(JSON.stringify(origin)) });
}

function nestedOf(values, shape) {
  if (!shape.length) return Number.isFinite(values[0]) ? values[0] : null;
  if (shape.length === 1) return Array.from(values, (value) => (Number.isFinite(value) ? value : null));
  const size = shape.slice(1).reduce((a, b) => a * b, 1);
  return Array.from({ length: shape[0] }, (_, i) => nestedOf(values.slice(i * size, (i + 1) * size), shape.slice(1)));
}

export function jsonOf(numbers, origin) {
  const arrays = Object.entries(numbers).map(([name, { axes, shape, values }]) => [name, { axes, values: nestedOf(values, shape) }]);
  return JSON.stringify({ metadata: origin, arrays: Object.fromEntries(arrays) });
}

// Python with what it is of above it, as comments.
export const pythonOf = (code, origin) => [lineOf(origin), origin.link].filter(Boolean).map((line) => `# ${line.replace(/[\r\n]+/g, " ")}\n`).join("") + code;

function saved(name, type, ...parts) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  const link = node("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

const FILES = {
  PNG: async (out, origin, colours) => saved(`${out.file}.png`, "image/png", pngWithText(await rasterised(footed(out.svg(), origin, colours)), "Description", JSON.stringify(origin))),
  SVG: (out, origin, colours) => saved(`${out.file}.svg`, "image/svg+xml", svgString(footed(out.svg(), origin, colours))),
  NPZ: (out, origin) => saved(`${out.file}.npz`, "application/zip", npzOf(out.numbers, { ...origin, names: out.names })),
  JSON: (out, origin) => saved(`${out.file}.json`, "application/json", jsonOf(out.numbers, { ...origin, names: out.names })),
};

// The buttons under a figure; empty for a figure that cannot be exported.
export function exportTools(page, figure) {
  if (!figure.exported) return node("div", { hidden: true });
  const said = node("span", { class: "pz-said", role: "status" });
  const code = node("code", {});
  const copy = async () => {
    await navigator.clipboard.writeText(code.textContent).then(() => { said.textContent = "Copied."; }, () => {
      getSelection().selectAllChildren(code);
      said.textContent = "Selected: copy it with the keyboard.";
    });
  };
  const shown = node("div", { class: "pz-python", hidden: true }, node("pre", { tabindex: 0, "aria-label": "Python" }, code), node("button", { type: "button", onclick: copy }, "Copy"));
  const make = async (kind) => {
    said.textContent = "";
    try {
      const out = figure.exported();
      const origin = originOf(page, out);
      const words = [out.name, origin.model, origin.step === null ? "" : `step-${origin.step}`].map((word) => String(word).replace(/[^A-Za-z0-9-]+/g, "-"));
      await FILES[kind]({ ...out, file: words.filter(Boolean).join("_") }, origin, palette(said));
    } catch (error) {
      said.textContent = error.message;
    }
  };
  const python = node("button", { type: "button", "aria-expanded": "false", onclick: () => {
    const out = figure.exported();
    code.textContent = pythonOf(out.code || "", originOf(page, out));
    shown.hidden = !shown.hidden;
    python.setAttribute("aria-expanded", String(!shown.hidden));
  } }, "Python");
  const buttons = Object.keys(FILES).map((kind) => node("button", { type: "button", onclick: () => make(kind) }, kind));
  return node("div", { class: "pz-export", role: "group", "aria-label": "Take this figure along" }, node("span", {}, "Save as"), ...buttons, page.embedded ? "" : python, said, shown);
}
