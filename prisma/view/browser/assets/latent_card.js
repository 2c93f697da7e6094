// One latent: its images, how strong it is, what it adds to the outputs, which classes and latents its direction is like.
import { brief, node, range, signed } from "./core.js";
import { histogramDrawing } from "./latent_drawing.js";
import { litImage, sharesOf } from "./latent_images.js";
import { percent } from "./latent_list.js";
import { palette } from "./drawing.js";

// Bars of [label, value] pairs, as long as their share of the largest.
export function signedBars(pairs, name) {
  const most = Math.max(...pairs.map(([, value]) => Math.abs(value)), 1e-9);
  return node("ol", { class: "pz-top pz-largest", "aria-label": name }, ...pairs.map(([label, value]) => node("li", { class: value < 0 ? "pz-negative" : null },
    node("span", { class: "pz-fill", style: `transform:scaleX(${Math.abs(value) / most})` }), node("span", { class: "pz-name" }, label), node("span", { class: "pz-value" }, signed(value)))));
}

// handlers: open(latent), image(i).
export class LatentCard {
  constructor(handlers) {
    this.handlers = handlers;
    this.element = node("section", { class: "pz-latent-card", "aria-live": "polite" });
  }

  // latent: {latent, name, by, density, images: [{image, strength, caption, bytes, prefix: [[name, value]]}], histogram, range,
  // effects, classes: [[label, value]], near: [[latent, name, cosine]]}; of: {prefix, grid, what it changes, on how many images}.
  draw(latent, of) {
    const title = `Latent ${latent.latent}${latent.name ? `: ${latent.name}` : ""}`;
    const proposal = latent.name ? node("p", { class: "pz-quiet" }, `The name is a proposal by ${latent.by}.`) : "";
    const is = latent.density === 0 ? "Dead: active on no token of these images." : `Active on ${percent(latent.density)} of the tokens, at most ${brief(latent.images[0].strength)} strong.`;
    const columns = node("div", { class: "pz-cards" });
    const column = (heading, words, ...more) => columns.append(node("div", { class: "pz-card" }, node("h2", {}, heading), node("h3", {}, words), ...more));
    if (latent.density > 0) column("How strong", "tokens on which it is active, by strength", this.histogram(latent));
    if (latent.effects?.length) column("What it adds", `to the ${of.what}, on average over ${of.on === 1 ? "its strongest image" : `its ${of.on} strongest images`}: the model as it is, minus the model without the latent`, signedBars(latent.effects, "What it adds"));
    if (latent.classes?.length) column("Classes its direction is like", "cosine of the decoder direction with the directions of classes", signedBars(latent.classes, "Classes"));
    if (latent.near.length) column("Nearest latents", "cosine of the decoder directions", this.near(latent.near));
    this.element.replaceChildren(node("h2", { class: "pz-latent-title" }, title), proposal, node("p", { class: "pz-words" }, is),
      node("div", { class: "pz-lit-images" }, ...latent.images.map((one, i) => this.figure(one, i, of))), columns);
  }

  figure({ image, strength, caption, bytes, prefix }, i, of) {
    const lit = litImage(`Image ${i + 1}: ${caption}, strength ${brief(strength)}`);
    this.handlers.image(image).then((found) => lit.draw(found, sharesOf(bytes, of.prefix, of.grid), of.grid), () => {});
    const beside = prefix.map(([name, value]) => `, ${name} ${brief(value)}`).join("");
    return node("figure", {}, lit.element, node("figcaption", {}, node("span", {}, `${brief(strength)}${beside}`), node("span", { class: "pz-quiet" }, caption)));
  }

  histogram({ histogram, range: top }) {
    const last = histogram.reduce((best, count, i) => (count ? i + 1 : best), 1);
    const high = (top * last) / histogram.length;
    return node("div", { class: "pz-drawing" }, histogramDrawing(histogram.slice(0, last), { width: 320, height: 130, low: 0, high, ticks: [[0, "0"], [high / 2, brief(high / 2)], [high, brief(high)]], colours: palette(this.element), title: `${histogram.reduce((a, b) => a + b, 0).toLocaleString("en")} tokens` }));
  }

  near(latents) {
    return node("ol", { class: "pz-top", "aria-label": "Nearest latents" }, ...latents.map(([latent, name, cosine]) => node("li", {},
      node("button", { type: "button", onclick: () => this.handlers.open(latent) }, node("span", { class: "pz-fill", style: `transform:scaleX(${Math.max(0, cosine)})` }),
        node("span", { class: "pz-name" }, `#${latent}${name ? ` ${name}` : ""}`), node("span", { class: "pz-value" }, brief(cosine))))));
  }
}

// The bytes of map [latent, rank] of an array of bytes [latent, rank, token].
export const bytesAt = ({ shape, values }, latent, rank) => values.subarray((latent * shape[1] + rank) * shape[2], (latent * shape[1] + rank + 1) * shape[2]);
export const ranksOf = (images) => range(images.length).filter((rank) => images[rank] >= 0);
