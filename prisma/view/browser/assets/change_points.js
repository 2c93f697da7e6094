// When a score of a head changed most over training, and between which steps it stays when other images are drawn.
import { signed } from "./core.js";

const stepWords = (value) => value.toLocaleString("en");

// Of the arrays `change` and `jump` [value and both ends, score, layer, head], what is of one head:
// {step, first, last, jump, least, most}; `step` is undefined where there is no single step of change.
export function changeOf({ change, jump }, index) {
  if (!change) return null;
  const count = change.values.length / 3;
  const [at, first, last] = [0, 1, 2].map((i) => change.values[i * count + index]);
  const [by, least, most] = [0, 1, 2].map((i) => jump.values[i * count + index]);
  if (!Number.isFinite(by)) return null;
  return { step: Number.isFinite(at) ? at : undefined, first, last, jump: by, least, most };
}

export function changeWords(change) {
  if (!change) return "";
  const by = `${signed(change.jump)} (${signed(change.least)} to ${signed(change.most)})`;
  if (change.step === undefined) return ` No single step of change: ${by}.`;
  return ` Changed most by step ${stepWords(change.step)} (${stepWords(change.first)} to ${stepWords(change.last)}): ${by}.`;
}

export const CHANGES = " A dot is where the score of a head changed most; the band, and brackets below, are 95 % intervals over images. A slow rise has a dot too.";

// The steps between which it changed, for a band: from the checkpoint before the first of the interval on.
export function changeBand(change, steps) {
  if (change?.step === undefined) return null;
  return { step: change.step, from: steps[Math.max(0, steps.findIndex((some) => some >= change.first) - 1)], to: change.last };
}
