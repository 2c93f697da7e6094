// What a visitor looks at: one object with the keys of an address. `fromAddress` reads it, `toAddress` writes it.
// The server has the same keys (app/prisma_app/state.py) and checks every value again; those below the line are the
// page's own: how a figure is drawn, and not which numbers it shows.

const whole = (text) => (/^\d{1,12}$/.test(text) ? Number(text) : undefined);
const positive = (text) => whole(text) || undefined;
const decimal = (text) => (/^-?\d{1,6}(\.\d{1,6})?$/.test(text) ? Number(text) : undefined);
const text = (value) => value;
const oneOf = (...known) => (value) => (known.includes(value) ? value : undefined);

export const VIEWS = ["attention", "lens", "patching", "training", "decompose", "steering", "latents", "units"];
export const KEYS = {
  v: oneOf("1"), model: text, rev: text, view: oneOf(...VIEWS), img: text, step: whole, layer: whole, head: whole, token: whole,
  corrupt: text, metric: text, into: oneOf("clean", "corrupt"), site: text, target: whole, against: whole, prompts: text, ablate: text,
  coder: text, latent: whole, change: text, // the sparse coder, its latent that is looked at, and how it is changed
  steer: text, where: oneOf("class", "patches", "all"), direction: oneOf("means", "readout"), reach: positive, // the site a direction is added to, its tokens, what is added, and the largest dose
  outlying: text, after: whole, moved: positive, // of register neurons, which norms are outlying, after which layer, and how many neurons are moved
  span: positive, // how many names each head gets
  units: text, number: whole, // a kind of units, of `layer` and `head`, and the one that is looked at
  estimate: oneOf("atp", "ig", "relp", "attn_lrp", "qk_fix", "atp_star"), // how effects of patches are estimated, beside exact runs
  cell: oneOf("head", "token"), // the cell of `layer` that is looked at, in the one or the other map of patching
  // ---
  pin: oneOf("1"), // the token is pinned: hovering does not change it
  embedding: oneOf("1"), // the lens shows the stage before layer 0
  way: oneOf("to", "from"), // where the token attends, or who attends to it
  map: oneOf("heads", "mean", "rollout"), // what the large map shows
  scale: oneOf("row", "alike"), // colours of each map by its own largest value, or of all maps alike
  cover: whole, // per cent of the map over the image
  sort: text, // the score by which heads are sorted, the highest first; "-entropy": the lowest first
  top: positive, // how many of the sorted heads are shown
  unit: oneOf("recovered", "metric"), // what the colours of patching are: a share of the gap, or the metric
  parts: oneOf("heads", "queries", "keys", "values", "tokens"), // of which an estimate is compared with exact runs
  dose: decimal, // of a direction, at which this image's answer is shown
  paths: oneOf("strongest", "differing", "signs"), // patching shows the paths of the pair: which of them
  circuit: oneOf("1"), // patching finds the circuit of the pair
  every: oneOf("1"), // patching computes every token exactly, not only the largest
  classes: text, // whose probability the lens draws over the layers: "3,5"
  bars: oneOf("each", "layers"), // of a decomposed logit: every part, or the sum of each layer
  order: oneOf("model", "size"), // of the bars
  by: text, which: text, find: text, // how latents or units are sorted, which are shown, and what they are searched for
  start: oneOf("zero", "sum"), // where a bar starts: at zero, or where the bar before it ends
  model2: text, rev2: text, img2: text, step2: whole, // what is shown beside it
};
export const DEFAULTS = {
  view: "attention", img: "0", layer: 0, head: 0, metric: "logit_diff", into: "clean", site: "resid_pre", way: "to", map: "heads", scale: "row",
  unit: "recovered", direction: "means", bars: "each", order: "model", start: "zero",
};

// The address's keys -> {state, mistakes: [sentence, ...]}. What the page does not know is left out, and said.
export function fromAddress(search) {
  const state = { ...DEFAULTS };
  const mistakes = [];
  for (const [key, value] of new URLSearchParams(search)) {
    if (!Object.hasOwn(KEYS, key) || value === "") continue;
    const read = KEYS[key](value);
    if (read === undefined) mistakes.push(`The address has ${key}=${value.slice(0, 40)}, which is none that this page knows.`);
    else if (key !== "v") state[key] = read;
  }
  return { state, mistakes };
}

export function toAddress(state) {
  const link = new URLSearchParams({ v: "1" });
  for (const key of Object.keys(KEYS)) {
    const value = state[key];
    if (key === "v" || value === undefined || value === null || value === "") continue;
    if (DEFAULTS[key] === value && key !== "view" && key !== "img") continue;
    link.set(key, value);
  }
  return `?${String(link).replaceAll("%2F", "/").replaceAll("%3A", ":").replaceAll("%2C", ",")}`;
}

export const MOST_NAMES = 10; // of each head

// The state with every value that this model does not have replaced by its default, and a sentence for each.
export function valid(state, model) {
  const mistakes = [];
  const found = { ...state };
  const tokens = model.prefix.length + model.grid[0] * model.grid[1];
  const below = { layer: model.layers, head: model.heads, token: tokens, target: model.labels.length, against: model.labels.length, after: model.layers };
  for (const [key, count] of Object.entries(below)) {
    if (found[key] === undefined || found[key] < count) continue;
    mistakes.push(`The address asks for ${key} ${found[key]}; ${model.name} has ${key}s from 0 to ${count - 1}.`.replace("againsts", "classes").replace("targets", "classes").replace("afters", "layers"));
    found[key] = DEFAULTS[key];
  }
  const spans = Array.from({ length: Math.min(MOST_NAMES, model.labels.length) }, (_, i) => i + 1);
  const known = { step: model.steps, site: model.sites, metric: model.metrics, span: spans };
  for (const [key, values] of Object.entries(known)) {
    if (found[key] === undefined || values.includes(found[key])) continue;
    mistakes.push(`The address asks for ${key} ${String(found[key]).slice(0, 40)}; ${model.name} has ${values.length > 12 ? `${values.length} from ${values[0]} to ${values.at(-1)}` : values.join(", ")}.`);
    found[key] = DEFAULTS[key];
  }
  const asked = String(found.classes ?? "").split(",").filter(Boolean);
  const kept = asked.filter((c) => /^\d{1,6}$/.test(c) && Number(c) < model.labels.length);
  if (kept.length < asked.length) {
    mistakes.push(`The address asks for classes ${found.classes.slice(0, 40)}; ${model.name} has classes from 0 to ${model.labels.length - 1}.`);
    found.classes = kept.join(",") || undefined;
  }
  if (/^\d+$/.test(found.img) && !model.examples.some(({ img }) => img === found.img)) {
    mistakes.push(`The address asks for image ${found.img.slice(0, 12)}; ${model.name} has ${model.examples.length} example images.`);
    Object.assign(found, { img: model.examples[0].img, corrupt: undefined, target: undefined, against: undefined });
  }
  return { state: found, mistakes };
}

// Which keys decide the numbers of each request to a source. Equal values give equal bytes.
const PLACE = ["model", "rev"];
const IMAGE = [...PLACE, "step", "img"];
export const ASKS = {
  model: [...PLACE, "prompts"],
  answer: [...IMAGE, "prompts"],
  attention: IMAGE,
  lens: [...IMAGE, "prompts"],
  patching: [...IMAGE, "corrupt", "metric", "into", "site", "target", "against", "prompts"],
  training: [...PLACE, "img"],
  decompose: [...IMAGE, "target", "against", "prompts"],
  steering: [...IMAGE, "target", "against", "steer", "where", "direction", "reach"],
  latents: [...IMAGE, "coder", "latent", "change", "prompts"],
  units: [...IMAGE, "units", "layer", "head", "number", "prompts"],
};

// What else of a state a view shows, of the numbers that it has: a cell of patching is of a layer, and a head or a token.
const LOOKED_AT = {
  attention: ["layer", "head", "token"], lens: ["layer", "token", "classes"], patching: ["layer", "head", "token", "cell", "ablate", "estimate"],
  training: ["layer", "head"], decompose: ["span"], steering: [], latents: [], units: ["outlying", "after", "moved"],
};

// The state without what only other views ask for or show.
export function ofView(state) {
  const used = [...ASKS[state.view], ...LOOKED_AT[state.view]];
  const others = VIEWS.flatMap((view) => [...ASKS[view], ...LOOKED_AT[view]]).filter((key) => !used.includes(key) && !ASKS.answer.includes(key));
  return { ...state, ...Object.fromEntries(others.map((key) => [key, DEFAULTS[key]])) };
}
