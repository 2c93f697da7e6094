// Attention as payload.py writes it: patches are 8-bit shares of the largest patch in their row. Nothing is copied: the
// weights from a token ("to") or to it ("from") are written into an array of the caller, `out`; the largest weight of a
// patch, or of a patch's query, is returned, because a prefix token that draws most of the attention must not hide them.
import { range } from "./core.js";

export class Pattern {
  constructor(arrays, prefix) {
    const [heads, queries, patches] = arrays.pattern.shape;
    Object.assign(this, {
      heads, tokens: queries, patches, prefix,
      levels: arrays.pattern.values, scales: arrays["pattern.scale"].values, first: arrays["pattern.prefix"].values,
    });
  }

  at(head, query, key) {
    const row = head * this.tokens + query;
    if (key < this.prefix) return this.first[row * this.prefix + key];
    return (this.levels[row * this.patches + key - this.prefix] * this.scales[row]) / 255;
  }

  fill(way, head, token, out) {
    const { tokens, patches, prefix, levels, scales, first } = this;
    if (way === "to") {
      const row = head * tokens + token;
      const share = scales[row] / 255;
      for (let key = 0; key < prefix; key += 1) out[key] = first[row * prefix + key];
      for (let p = 0, at = row * patches; p < patches; p += 1, at += 1) out[prefix + p] = levels[at] * share;
      return scales[row];
    }
    let top = 0;
    for (let query = 0, row = head * tokens; query < tokens; query += 1, row += 1) {
      const weight = token < prefix ? first[row * prefix + token] : (levels[row * patches + token - prefix] * scales[row]) / 255;
      out[query] = weight;
      if (query >= prefix && weight > top) top = weight;
    }
    return top;
  }

  has() {
    return true;
  }
}

// The same where only the attention from one token and to it was read, because the patterns are large.
export class TokenPattern {
  constructor({ arrays, facts }, prefix) {
    const rows = new Pattern(arrays, prefix);
    Object.assign(this, { heads: rows.heads, tokens: rows.patches + prefix, patches: rows.patches, prefix, token: facts.token, rows, from: arrays.from.values });
  }

  at(head, query, key) {
    if (query === this.token) return this.rows.at(head, 0, key);
    return key === this.token ? this.from[head * this.tokens + query] / 65535 : NaN;
  }

  fill(way, head, token, out) {
    if (way === "to") return this.rows.fill("to", head, 0, out);
    let top = 0;
    for (let query = 0; query < this.tokens; query += 1) {
      out[query] = this.from[head * this.tokens + query] / 65535;
      if (query >= this.prefix && out[query] > top) top = out[query];
    }
    return top;
  }

  has(token) {
    return token === this.token;
  }
}

// Such patterns of all heads, one layer after the other -> one for each layer.
export function tokenPatterns({ arrays, facts }, layers, prefix) {
  const part = ({ shape, values }, layer) => {
    const size = values.length / layers;
    return { shape: [shape[0] / layers, ...shape.slice(1)], values: values.subarray(layer * size, (layer + 1) * size) };
  };
  const of = (layer) => Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, part(array, layer)]));
  return range(layers).map((layer) => new TokenPattern({ arrays: of(layer), facts }, prefix));
}

// The mean over the heads of a layer, written into `out`; `scratch` is as long.
export function fillMean(pattern, way, token, out, scratch) {
  out.fill(0);
  for (let head = 0; head < pattern.heads; head += 1) {
    pattern.fill(way, head, token, scratch);
    for (let i = 0; i < out.length; i += 1) out[i] += scratch[i] / pattern.heads;
  }
  let top = 0;
  for (let i = pattern.prefix; i < out.length; i += 1) if (out[i] > top) top = out[i];
  return top;
}

// All weights [head, query, key] as numbers, for an export; of a TokenPattern those from its token, [head, key].
export function allWeights(pattern, of = "pattern") {
  if (pattern instanceof TokenPattern) return { ...allWeights(pattern.rows), axes: ["head", "key"], shape: [pattern.heads, pattern.tokens] };
  const { heads, tokens, patches, prefix } = pattern;
  const keys = prefix + patches;
  const values = new Float32Array(heads * tokens * keys);
  for (let head = 0, at = 0; head < heads; head += 1) {
    for (let query = 0; query < tokens; query += 1) for (let key = 0; key < keys; key += 1, at += 1) values[at] = pattern.at(head, query, key);
  }
  return of === "rollout" ? { axes: ["query", "key"], shape: [tokens, keys], values } : { axes: ["head", "query", "key"], shape: [heads, tokens, keys], values };
}
