// Parts shared by the viewers: elements, arrays, colours. A string from a model or a file only ever becomes text.
"use strict";

function node(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// {url, type, shape} -> {shape, at(i, j, ...), row(i, ...), column(j)}; fractions come back as numbers in [0, 1].
async function load(packed) {
  const response = await fetch(packed.url);
  if (!response.ok) throw new Error(`could not load the data of this view (HTTP ${response.status})`);
  const buffer = await new Response(response.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const raw = packed.type === "uint16" ? new Uint16Array(buffer) : new Float32Array(buffer);
  const scale = packed.type === "uint16" ? 65535 : 1;
  const strides = packed.shape.map((_, i) => packed.shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const offset = (index) => index.reduce((sum, i, axis) => sum + i * strides[axis], 0);
  const at = (...index) => raw[offset(index)] / scale;
  return {
    shape: packed.shape,
    at,
    column: (index) => Array.from({ length: packed.shape[0] }, (_, i) => at(i, index)),
    row: (...index) => {
      const start = offset(index);
      return Array.from(raw.subarray(start, start + (index.length ? strides[index.length - 1] : raw.length)), (value) => value / scale);
    },
  };
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
const SEQUENTIAL = ramp(
  ["#000004", "#140e36", "#3b0f70", "#641a80", "#8c2981", "#b73779", "#de4968", "#f7705c", "#fe9f6d", "#fecf92", "#fcfdbf"],
);
const DIVERGING = ramp(
  ["#053061", "#2065ab", "#4393c3", "#90c4dd", "#d1e5f0", "#f7f6f6", "#fddbc7", "#f3a481", "#d6604d", "#b1182b", "#67001f"],
);

// value -> [red, green, blue] of a map that runs from low to high.
function colour(map, low, high) {
  const width = high - low || 1;
  return (value) => map[Math.max(0, Math.min(255, Math.round(((value - low) / width) * 255)))];
}
const css = (rgb) => `rgb(${rgb[0]},${rgb[1]},${rgb[2]})`;

// A colour bar with its numbers: draw(map, [[place in 0..1, text], ...]).
function colourBar(name) {
  const strip = node("canvas", { class: "pz-strip", width: 256, height: 1, "aria-hidden": "true" });
  const labels = node("div", { class: "pz-ticks" });
  const element = node("div", { class: "pz-bar", role: "group", "aria-label": `Colour bar: ${name}` }, strip, labels);
  const draw = (map, ticks) => {
    const pixels = new ImageData(256, 1);
    map.forEach((rgb, i) => pixels.data.set([...rgb, 255], 4 * i));
    strip.getContext("2d").putImageData(pixels, 0, 0);
    labels.replaceChildren(
      ...ticks.map(([place, text]) => {
        const tick = node("span", { style: `left:${100 * place}%` }, text);
        if (place < 0.1) tick.className = "pz-first";
        if (place > 0.9) tick.className = "pz-last";
        return tick;
      }),
    );
  };
  return { element, draw };
}

// A canvas as sharp as the screen, of a size in CSS pixels -> its context, cleared.
function sharp(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// Image i of [image, height, width, channel] fractions -> a canvas of that many pixels.
function picture(images, i) {
  const [, height, width, channels] = images.shape;
  const canvas = node("canvas", { width, height });
  const pixels = new ImageData(width, height);
  const values = images.row(i);
  for (let p = 0; p < width * height; p += 1) {
    const rgb = [0, 1, 2].map((c) => 255 * values[p * channels + (channels === 1 ? 0 : c)]);
    pixels.data.set([...rgb, 255], 4 * p);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

const option = (value, text) => node("option", { value }, text);

// A labelled select of [value, text] pairs.
function choice(name, pairs, onchange) {
  const select = node("select", { onchange: () => onchange(select.value) }, ...pairs.map(([v, text]) => option(v, text)));
  return { element: node("label", { class: "pz-choice" }, node("span", {}, name), select), select };
}

// Starts every job at once, and tells it through `current()` whether it is still the newest: an older one must stop then.
function latest() {
  let turn = 0;
  return async (job, failed) => {
    turn += 1;
    const mine = turn;
    try {
      await job(() => mine === turn);
    } catch (error) {
      if (mine === turn) failed(error);
    }
  };
}
