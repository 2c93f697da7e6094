// The numbers of a logit lens on one image, as prisma/view/browser/lens.py writes them.
import { Numbers } from "./pack.js";
import { range } from "./core.js";

export class LensNumbers {
  constructor({ arrays }) {
    this.logits = new Numbers(arrays.readout);
    const [stages, classes] = arrays.readout.shape;
    this.readout = range(stages).map((stage) => softmax(this.logits.row(stage)));
    this.alone = Boolean(arrays["top.class"]);
    Object.assign(this, { stages, classes, columns: new Map() });
    if (!this.alone) return;
    this.best = new Numbers(arrays["top.class"]);
    this.probability = new Numbers(arrays["top.probability"]);
    [, this.tokens, this.depth] = arrays["top.class"].shape;
    if (arrays.tokens) this.all = new Numbers(arrays.tokens);
    else new Numbers(arrays["column.class"]).row().forEach((c, i) => this.columns.set(c, Float32Array.from(new Numbers(arrays.columns).row(i))));
  }

  // The likeliest classes of a token at a stage: [[class, probability], ...].
  top(stage, token) {
    return range(this.depth).map((k) => [this.best.at(stage, token, k), this.probability.at(stage, token, k)]);
  }

  first(stage, token) {
    return [this.best.at(stage, token, 0), this.probability.at(stage, token, 0)];
  }

  // The likeliest classes of the whole image at a stage.
  whole(stage, count) {
    this.orders ||= [];
    this.orders[stage] ||= this.readout[stage].map((value, index) => [index, value]).sort((a, b) => b[1] - a[1]);
    return this.orders[stage].slice(0, count);
  }

  has(c) {
    return Boolean(this.all) || this.columns.has(c);
  }

  // The probabilities [stage * token] of a class; null if they were not asked for.
  column(c) {
    if (!this.columns.has(c) && this.all) {
      const column = new Float32Array(this.stages * this.tokens);
      for (let i = 0; i < column.length; i += 1) column[i] = this.all.values[i * this.classes + c] * this.all.scale;
      this.columns.set(c, column);
    }
    return this.columns.get(c) || null;
  }

  add(c, array) {
    this.columns.set(c, Float32Array.from(new Numbers(array).row()));
  }
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = logits.map((value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((value) => value / sum);
}
