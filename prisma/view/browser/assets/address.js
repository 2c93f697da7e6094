// The state in the browser's address. Safari refuses more than 100 changes in 30 seconds and Chrome ignores more than 200
// in 10, and a slider makes more: then changes wait for their turn, and the last one is always written.
import { toAddress } from "./state.js";

const MOST_CHANGES = 80; // in WINDOW; steps that Back undoes do not wait, and have the rest
const WINDOW = 30_000; // milliseconds

export class Address {
  // `asHash`: the keys stand behind #, for a server of files may not know ?.
  constructor(asHash) {
    Object.assign(this, { asHash, times: [], next: null, timer: null });
    window.addEventListener("pagehide", () => this.flush());
  }

  // The present state in the address of this entry of the history, or of a new one.
  write(state, isStep = false) {
    const query = toAddress(state);
    const url = this.asHash ? `#${query.slice(1)}` : query;
    if (isStep) {
      this.flush();
      if (url !== this.written) this.change("pushState", url);
      return;
    }
    this.next = url === this.written ? null : url;
    if (this.next === null || this.timer !== null) return;
    const now = performance.now();
    this.times = this.times.filter((time) => time > now - WINDOW);
    if (this.times.length < MOST_CHANGES) this.flush();
    else this.timer = setTimeout(() => this.flush(), this.times[this.times.length - MOST_CHANGES] + WINDOW - now);
  }

  // Writes what waits, now.
  flush() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.next !== null) this.change("replaceState", this.next);
    this.next = null;
  }

  change(how, url) {
    history[how](history.state, "", url);
    this.written = url;
    this.times.push(performance.now());
  }

  // What the visitor, or Back, has made of the address: nothing waits any longer.
  read() {
    clearTimeout(this.timer);
    Object.assign(this, { next: null, timer: null, written: null });
    return location.hash.includes("=") ? location.hash.replace("#", "?") : location.search;
  }

  get href() {
    this.flush();
    return location.href;
  }
}
