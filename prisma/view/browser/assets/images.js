// Choose an image: the examples of a task, or a drawing.
// facts: {title, names: [text, ...], chosen: index or -1, caption, drawable}; arrays: images [image, height, width, channel]

const INK = 64; // side of a drawing in pixels, as it is sent
const DRAWING = "Your drawing"; // the caption of a drawing, as app/prisma_app/subject.py sets it

class Images {
  constructor(root, callbacks) {
    this.callbacks = callbacks;
    this.turn = latest();
    this.title = node("span", { class: "pz-title" });
    this.words = node("span", { role: "status" }, "Loading the examples.");
    this.strip = node("div", { class: "pz-examples", role: "group", "aria-label": "Examples" });
    this.pad = new Pad((ink) => callbacks.draw(ink));
    root.replaceChildren(
      node("p", { class: "pz-caption" }, this.title, this.words),
      node("div", { class: "pz-choose" }, this.strip, this.pad.element),
    );
  }

  update(manifest) {
    return this.turn((current) => this.show(manifest, current), (error) => { this.words.textContent = error.message; });
  }

  async show({ facts, arrays }, current) {
    const same = this.url === arrays.images.url;
    const images = same ? this.images : await load(arrays.images);
    if (!current()) return;
    Object.assign(this, { images, url: arrays.images.url });
    if (!same) {
      this.strip.replaceChildren(...facts.names.map((name, i) => {
        const thumb = picture(images, i);
        thumb.setAttribute("aria-hidden", "true");
        return node("button", { type: "button", class: "pz-example", title: name, "aria-label": name, onclick: () => this.callbacks.choose(i) }, thumb);
      }));
    }
    [...this.strip.children].forEach((button, i) => button.setAttribute("aria-pressed", i === facts.chosen));
    this.pad.element.hidden = !facts.drawable;
    if (facts.caption !== DRAWING) this.pad.clear();
    this.strip.setAttribute("aria-label", `${facts.title}: examples`);
    this.title.textContent = facts.title;
    this.words.textContent = facts.caption;
    this.callbacks.state({ chosen: facts.chosen, count: facts.names.length });
  }
}

// White ink on black. Every finished stroke is sent as INK x INK bytes.
class Pad {
  constructor(send) {
    this.canvas = node("canvas", { class: "pz-pad", width: 4 * INK, height: 4 * INK, role: "img", "aria-label": "Draw an image here" });
    this.hint = node("span", { class: "pz-hint", "aria-hidden": "true" }, "draw");
    const wipe = node("button", { type: "button", onclick: () => this.clear() }, "Clear");
    this.element = node("div", { class: "pz-draw" }, node("div", {}, this.canvas, this.hint), wipe);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.clear();
    let last = null;
    const at = (event) => {
      const bounds = this.canvas.getBoundingClientRect();
      return [((event.clientX - bounds.left) / bounds.width) * 4 * INK, ((event.clientY - bounds.top) / bounds.height) * 4 * INK];
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.hint.hidden = true;
      last = at(event);
      this.stroke(last, last);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      const next = at(event);
      this.stroke(last, next);
      last = next;
    });
    const finish = () => {
      if (!last) return;
      last = null;
      send(this.ink());
    };
    this.canvas.addEventListener("pointerup", finish);
    this.canvas.addEventListener("pointercancel", finish);
  }

  clear() {
    this.context.fillStyle = "#000000";
    this.context.fillRect(0, 0, 4 * INK, 4 * INK);
    this.hint.hidden = false;
  }

  stroke(from, to) {
    Object.assign(this.context, { strokeStyle: "#ffffff", lineWidth: INK / 1.7, lineCap: "round", lineJoin: "round" });
    this.context.beginPath();
    this.context.moveTo(...from);
    this.context.lineTo(...to);
    this.context.stroke();
  }

  // Averages of 4 x 4 pixels, as base64.
  ink() {
    const { data } = this.context.getImageData(0, 0, 4 * INK, 4 * INK);
    let bytes = "";
    for (let p = 0; p < INK * INK; p += 1) {
      let sum = 0;
      for (let i = 0; i < 16; i += 1) {
        const [x, y] = [(p % INK) * 4 + (i % 4), Math.floor(p / INK) * 4 + Math.floor(i / 4)];
        sum += data[4 * (y * 4 * INK + x)];
      }
      bytes += String.fromCharCode(Math.round(sum / 16));
    }
    return btoa(bytes);
  }
}

const images = (root, callbacks) => new Images(root, callbacks);
