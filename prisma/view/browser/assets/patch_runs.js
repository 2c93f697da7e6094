// Exact cells as they come from the server: every head, then the tokens with the largest estimates, then, if asked, all.
import { range } from "./core.js";

// A number with so many decimals, and no minus before a zero.
export const decimals = (value, count) => value.toFixed(count).replace(/^-(?=[0.]*$)/, "");

// What is known of one question: the metric of every head and token, as far as it is, and which of them exactly.
class KnownCells {
  constructor(scene, { facts, arrays }) {
    const tokens = scene.prefix.length + scene.grid[0] * scene.grid[1];
    this.counts = { head: scene.heads, token: tokens };
    const filled = (name, count) => {
      const found = arrays[name] || arrays[`${name}.estimate`];
      return { values: found ? Float32Array.from(found.values) : new Float32Array(count).fill(NaN), exact: new Uint8Array(count).fill(arrays[name] ? 1 : 0) };
    };
    this.head = filled("heads", facts.counts.heads);
    this.token = filled("tokens", facts.counts.tokens);
    this.done = new Set(facts.exact ? ["heads", "top", "tokens"] : []);
  }

  put(axis, layer, unit, value) {
    const place = layer * this.counts[axis] + unit;
    this[axis].values[place] = value;
    this[axis].exact[place] = 1;
  }

  row(axis, layer) {
    const count = this.counts[axis];
    return this[axis].values.subarray(layer * count, (layer + 1) * count);
  }

  isExact(axis, layer, unit) {
    return this[axis].exact[layer * this.counts[axis] + unit] === 1;
  }

  rows(axis) {
    return range(this[axis].values.length / this.counts[axis]).map((layer) => this.row(axis, layer));
  }
}

const RUN_WORDS = { heads: "heads", top: "largest tokens", tokens: "tokens" };

// One question at a time. `changed()` is called whenever more is known; `status` is a sentence.
export class PatchRuns {
  constructor(page, changed) {
    Object.assign(this, { page, changed, known: null, found: null, status: "", phase: "idle", progress: null, abort: null });
  }

  // The question that `found` answers; one that is asked again goes on.
  ask(scene, found) {
    if (found === this.found) return;
    this.cancel();
    Object.assign(this, { found, known: new KnownCells(scene, found), status: "", progress: null, phase: "idle" });
  }

  // What is still to be computed; nothing starts again that the visitor has cancelled.
  missing(state) {
    return ["heads", "top", ...(state.every ? ["tokens"] : [])].filter((what) => !this.known.done.has(what));
  }

  start(state) {
    if (!this.page.source.live || this.phase === "running" || this.phase === "cancelled" || this.phase === "failed") return;
    if (this.missing(state).length) this.go(state);
  }

  again(state) {
    this.phase = "idle";
    this.start(state);
  }

  cancel() {
    if (this.phase !== "running") return;
    this.phase = "cancelled";
    this.abort.abort();
    this.status = "Cancelled: what is exact so far stays.";
    this.changed();
  }

  // `state` is filled in: the same question, whatever the defaults are.
  async go(state) {
    const [{ known }, abort] = [this, new AbortController()];
    Object.assign(this, { abort, phase: "running" });
    const mine = () => this.known === known && this.abort === abort && this.phase === "running";
    try {
      for (let [what] = this.missing(state); what && mine(); [what] = this.missing(this.page.state)) {
        await this.sweep(state, what, known, mine, abort);
        if (mine()) known.done.add(what);
      }
      if (mine()) Object.assign(this, { phase: "done", status: "", progress: null });
    } catch (error) {
      if (mine()) Object.assign(this, { phase: "failed", status: error.message, progress: null });
    }
    this.changed();
  }

  async sweep(state, what, known, mine, abort) {
    let [total, done] = [0, 0];
    const heard = (line) => {
      if (!mine()) return;
      if (this.page.state.view !== "patching") { // looked away: goes on when it is looked at again
        this.phase = "idle";
        abort.abort();
        return;
      }
      if (line.cells !== undefined) total = line.cells;
      else {
        const axis = line.head === undefined ? "token" : "head";
        known.put(axis, line.layer, line[axis], line.value);
        done += 1;
      }
      this.progress = { done, total };
      this.status = `Exact: ${done} of ${total} ${RUN_WORDS[what]}.`;
      this.changed();
    };
    await this.page.source.stream("patching", state, { what }, heard, abort.signal);
    if (mine() && done < total) throw new Error(`The server sent ${done} of ${total} ${RUN_WORDS[what]}.`);
  }
}
