// Where the numbers come from: a server, files beside the page, or the page itself. All answer `ask(what, state, part)`
// with {facts, arrays}, and keep what they have read; `what` is a key of ASKS.
import { ASKS, DEFAULTS } from "./state.js";
import { unpack } from "./pack.js";
import { packBeside } from "./beside.js";

const KEPT = 96 * 2 ** 20; // bytes of arrays

const keysOf = (what, state, more) => {
  const asked = Object.fromEntries(ASKS[what].filter((key) => state[key] !== undefined && state[key] !== "").map((key) => [key, state[key]]));
  return { ...asked, ...more };
};

// No answer, whatever was asked: the server is away, busy or broken.
export class Unanswered extends Error {}

class Source {
  constructor() {
    this.kept = new Map(); // address -> a promise of what was read; the oldest go first
    this.held = 0;
  }

  ask(what, state, more = {}) {
    const address = this.address(what, keysOf(what, state, more));
    const known = this.kept.get(address);
    if (known) {
      this.kept.delete(address);
      this.kept.set(address, known);
      return known;
    }
    const reading = this.read(address).then((found) => {
      if (found.facts.refused) throw new Error(found.facts.refused); // a page without a server says why a view is not there
      this.held += weight(found);
      this.alias(what, state, more, found, reading);
      this.trim();
      return found;
    });
    reading.catch(() => this.kept.delete(address));
    this.kept.set(address, reading);
    return reading;
  }

  // The state of a model nearest to this one that the source has numbers for, and a sentence about what is different.
  async nearest(state) {
    return { state, mistakes: [] };
  }

  // What the server filled in makes another address of the same numbers.
  alias(what, state, more, { facts }, reading) {
    const address = this.address(what, keysOf(what, { ...state, ...withoutNull(facts.state) }, more));
    if (!this.kept.has(address)) this.kept.set(address, reading);
  }

  async trim() {
    for (const [address, reading] of [...this.kept]) {
      if (this.held <= KEPT || this.kept.size < 8) return;
      this.kept.delete(address);
      this.held -= weight(await reading);
    }
  }
}

const withoutNull = (values) => Object.fromEntries(Object.entries(values || {}).filter(([, value]) => value !== null));
const weight = ({ arrays }) => Object.values(arrays).reduce((sum, { values }) => sum + values.byteLength, 0);

// The app's server, `base` is its address. Errors are the server's sentences.
export class Server extends Source {
  constructor(base) {
    super();
    this.base = base;
    this.live = true; // it computes what is asked
  }

  address(what, keys) {
    const path = ["model", "answer"].includes(what) ? what : `view/${what}`;
    return `${this.base}${path}?${new URLSearchParams(keys)}`;
  }

  async read(address) {
    return unpack(await (await this.fetched(address)).blob());
  }

  async fetched(address, how = {}) {
    let response;
    try {
      response = await fetch(address, how);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Unanswered("The server does not answer: is it still running?");
    }
    if (!response.ok) {
      const said = await response.json().catch(() => ({}));
      throw new (response.status < 500 ? Error : Unanswered)(said.error || `The server answered with status ${response.status}.`);
    }
    return response;
  }

  // {models: [name, ...], findings: [{title, text, state}, ...]}
  listed() {
    this.list ||= this.fetched(`${this.base}models`).then((response) => response.json());
    return this.list;
  }

  // Calls heard(line) for each line of a stream, until it ends or the signal aborts it.
  async stream(what, state, more, heard, signal) {
    const response = await this.fetched(`${this.base}stream/${what}?${new URLSearchParams(keysOf(what, state, more))}`, { signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const fact = JSON.parse(line);
        if (fact.error) throw new Error(fact.error);
        heard(fact);
      }
    }
  }

  // The name by which an address means a file that the visitor chose.
  async upload(file) {
    return (await (await this.fetched(`${this.base}image`, { method: "POST", body: file })).json()).img;
  }
}

// Files beside the page. Which were made is in `models`; what a visitor would have to compute is not there.
export class Files extends Source {
  constructor({ models, findings, base }) {
    super();
    Object.assign(this, { list: { models, findings }, base, live: false });
  }

  address(what, keys) {
    return fileName(what, keys);
  }

  read(name) {
    return packBeside(this.base, name, "This was not computed when the page was made: it shows some images and training steps, and not this one.");
  }

  async listed() {
    return this.list;
  }

  // A file has one pair, metric and class for an image and a training step, and all of one commit.
  async nearest(asked, model) {
    const state = { ...asked, step: asked.step ?? model.steps.at(-1) };
    const what = state.view;
    const part = what === "attention" ? { part: state.layer } : {}; // its parts are the layers, from the first on
    const read = await this.ask(what, state, part).catch(() => null); // the figure asks again, and says why
    if (!read) return super.nearest(asked);
    const own = withoutNull(read.facts.state);
    const isDefault = (key) => own[key] === undefined && state[key] === DEFAULTS[key]; // nobody asked for it
    const other = [...ASKS[what], ...(ONLY_LIVE[what] ?? [])].filter((key) => state[key] !== undefined && state[key] !== own[key] && !isDefault(key));
    const words = (values, keys) => keys.map((key) => `${key}=${String(values[key]).slice(0, 40)}`).join(", ");
    const shown = other.filter((key) => own[key] !== undefined);
    const mistakes = other.length ? [`This was not computed when the page was made: ${words(state, other)}.${shown.length ? ` The figure is of ${words(own, shown)}.` : ""}`] : [];
    return { state: { ...state, ...Object.fromEntries(other.map((key) => [key, own[key]])) }, mistakes };
  }

  // What a server would compute bit by bit is in one file.
  async stream(what, state, more, heard) {
    const { facts } = await this.ask(what, state, { ...more, stream: "1" });
    facts.lines.forEach(heard);
  }
}

// What only a server computes, of each view.
const ONLY_LIVE = { patching: ["ablate", "estimate", "paths", "circuit"], decompose: ["span"], units: ["outlying"] };

// The name of the file with what was asked, as app/prisma_app/twin.py writes it: only the model, the training step and the
// image differ between files, and the part.
export function fileName(what, keys) {
  const word = (value) => String(value).replace(/[^a-z0-9-]/g, (letter) => `_${letter.charCodeAt(0).toString(16).padStart(2, "0")}`);
  const named = ["model", "step", "img", "part", "what", "stream"].filter((key) => key in keys);
  return `${what}/${named.map((key) => `${key}-${word(keys[key])}`).join(".")}`;
}
