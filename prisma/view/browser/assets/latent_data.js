// What files or a server send of a coder, as prisma/sparse/dashboard.py writes it, for the list and for the card.
import { bytesAt, ranksOf } from "./latent_card.js";
import { Numbers } from "./pack.js";

// {facts, arrays} of all latents -> {facts, names, rows}: a row for each latent.
export function latentRows({ facts, arrays }) {
  const read = Object.fromEntries(Object.entries(arrays).filter(([name]) => !["maps", "pictures"].includes(name)).map(([name, array]) => [name, new Numbers(array)]));
  const names = new Map(facts.names.map(([latent, name, by]) => [latent, { name, by }]));
  const rows = Array.from({ length: facts.width }, (_, latent) => {
    const isAlive = read.density.at(latent) > 0;
    const output = facts.effects && isAlive ? facts.outputs[read.output.at(latent)] : "";
    const like = facts.classes.length ? facts.classes[read.class.at(latent)] : "";
    const name = names.get(latent)?.name || "";
    return {
      latent, name, density: read.density.at(latent), strength: read.strength.at(latent), effect: facts.effects ? read.effect.at(latent) : null,
      image: read.image.at(latent), bytes: bytesAt(arrays.maps, latent, 0), says: output || like || "", words: `${name}\n${output}\n${like}`.toLowerCase(),
    };
  });
  return { facts, names, rows };
}

// All of latent `at` of a part, {facts, arrays}; `row` is its row.
export function latentCard({ facts, names }, row, part, at) {
  const { arrays } = part;
  const [images, strengths] = [new Numbers(arrays.image).row(at), new Numbers(arrays.strength).row(at)];
  const found = part.facts.latents[at];
  return {
    ...row, ...found, by: names.get(row.latent)?.by, histogram: new Numbers(arrays.histogram).row(at), range: new Numbers(arrays.range).at(at),
    images: ranksOf(images).map((rank) => {
      const bytes = bytesAt(arrays.maps, at, rank);
      const prefix = facts.prefixes.map((name, i) => [name, (bytes[i] / 255) * strengths[rank]]);
      return { image: images[rank], strength: strengths[rank], caption: found.captions[rank], bytes, prefix: prefix.filter(([, value]) => value > 0) };
    }),
    near: found.near.map(([other, cosine]) => [other, names.get(other)?.name, cosine]),
  };
}
