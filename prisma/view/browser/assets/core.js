// Parts shared by the viewer: elements, colours, canvases. A string from a model or a file only ever becomes text.

export function node(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// A colour map: 256 colours between evenly spaced stops (matplotlib's magma, and RdBu_r, sampled at eleven points).
function ramp(stops) {
  const rgb = stops.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (rgb.length - 1);
    const low = Math.min(Math.floor(place), rgb.length - 2);
    return rgb[low].map((value, c) => Math.round(value + (rgb[low + 1][c] - value) * (place - low)));
  });
}
export const SEQUENTIAL = ramp(
  ["#000004", "#140e36", "#3b0f70", "#641a80", "#8c2981", "#b73779", "#de4968", "#f7705c", "#fe9f6d", "#fecf92", "#fcfdbf"],
);
export const DIVERGING = ramp(
  ["#053061", "#2065ab", "#4393c3", "#90c4dd", "#d1e5f0", "#f7f6f6", "#fddbc7", "#f3a481", "#d6604d", "#b1182b", "#67001f"],
);
// The same as 32-bit pixels, for ImageData.
const pixelsOf = (map) => Uint32Array.from(map, ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
export const SEQUENTIAL_PIXELS = pixelsOf(SEQUENTIAL);
export const DIVERGING_PIXELS = pixelsOf(DIVERGING);

// The place of a value in a colour map that runs from low to high: 0 to 255.
export function level(value, low, high) {
  const place = ((value - low) / (high - low || 1)) * 255;
  return place <= 0 ? 0 : place >= 255 ? 255 : Math.round(place);
}

// value -> [red, green, blue] of a map that runs from low to high.
export const colour = (map, low, high) => (value) => map[level(value, low, high)];
export const css = (rgb) => `rgb(${rgb[0]},${rgb[1]},${rgb[2]})`;

// A colour bar with its numbers: draw(map, [[place in 0..1, text], ...]).
export function colourBar(name) {
  const strip = node("canvas", { class: "pz-strip", width: 256, height: 1, "aria-hidden": "true" });
  const labels = node("div", { class: "pz-ticks" });
  const element = node("div", { class: "pz-bar", role: "group", "aria-label": `Colour bar: ${name}` }, strip, labels);
  let drawn = null;
  const draw = (map, ticks) => {
    if (drawn !== map) {
      const pixels = new ImageData(256, 1);
      map.forEach((rgb, i) => pixels.data.set([...rgb, 255], 4 * i));
      strip.getContext("2d").putImageData(pixels, 0, 0);
      drawn = map;
    }
    if (labels.children.length !== ticks.length) labels.replaceChildren(...ticks.map(() => node("span", {})));
    ticks.forEach(([place, text], i) => {
      const label = labels.children[i];
      if (label.textContent !== text) label.textContent = text;
      if (label.place === place) return; // most bars have theirs where they were
      Object.assign(label, { place, className: place < 0.1 ? "pz-first" : place > 0.9 ? "pz-last" : "" });
      label.style.left = `${100 * place}%`;
    });
  };
  return { element, draw };
}

// A canvas as sharp as the screen, of a size in CSS pixels -> its context, cleared.
export function sharp(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// Image i of the bytes [image, height, width, channel] -> a canvas of that many pixels.
export function picture({ shape, values }, i) {
  const [, height, width, channels] = shape;
  const canvas = node("canvas", { width, height });
  const pixels = new ImageData(width, height);
  const start = i * height * width * channels;
  for (let p = 0; p < width * height; p += 1) {
    for (let c = 0; c < 3; c += 1) pixels.data[4 * p + c] = values[start + p * channels + (channels === 1 ? 0 : c)];
    pixels.data[4 * p + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

export const option = (value, text) => node("option", { value }, text);

// A labelled select of [value, text] pairs, which is replaced by `offer` and set by `value`.
export function choice(name, pairs, onchange) {
  const select = node("select", { onchange: () => onchange(select.value) }, ...pairs.map(([v, text]) => option(v, text)));
  const element = node("label", { class: "pz-choice" }, node("span", {}, name), select);
  let offered = JSON.stringify(pairs);
  const offer = (next) => {
    const text = JSON.stringify(next);
    if (text === offered) return;
    offered = text;
    select.replaceChildren(...next.map(([v, label]) => option(v, label)));
  };
  return { element, select, offer };
}

// Throws if an address asks for a score that none of [{name}, ...] is: "entropy", or "-entropy" for the lowest first.
export function expectScore(scores, sort) {
  const name = (sort || "").replace(/^-/, "");
  if (!name || scores.some((score) => score.name === name)) return;
  throw new Error(`Expected a score among ${scores.map((score) => score.name).join(", ")}; found ${name.slice(0, 40)}.`);
}

export const range = (count) => [...Array(count).keys()];

// A number as people read it: three decimals, or four digits of larger and smaller ones.
export function brief(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 0.001 && size < 1000 ? value.toFixed(3) : value.toPrecision(4);
}

// The same with a sign.
export const signed = (value) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${brief(Math.abs(value))}`;

const SVG = "http:" + "//www.w3.org/2000/svg";
export function drawn(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
