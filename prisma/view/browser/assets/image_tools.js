// Images of a visitor's own: a file, the camera, or a drawing, which is small enough to be in the address itself.
import { node } from "./core.js";

const SIDE = 28; // pixels of a drawing, each of 16 levels
const LARGER = 8; // pixels of the pad for one of the drawing

export class ImageTools {
  constructor(place) {
    this.place = place;
    this.words = node("span", { class: "pz-quiet", role: "status" });
    this.file = node("input", { type: "file", accept: "image/*", class: "pz-file", "aria-label": "Upload an image", tabindex: -1, onchange: () => this.send(this.file.files[0]) });
    this.upload = node("button", { type: "button", onclick: () => this.file.click() }, "Upload an image");
    this.camera = node("button", { type: "button", onclick: () => this.photograph() }, "Camera");
    this.draw = node("button", { type: "button", onclick: () => this.pad.open() }, "Draw");
    this.pad = new Pad((img) => this.choose(img));
    this.element = node("div", { class: "pz-own" }, this.upload, this.file, this.camera, this.draw, this.words, this.pad.element);
  }

  update({ channels }) {
    this.element.hidden = !this.place.source.live;
    this.draw.hidden = channels !== 1;
    this.camera.hidden = !navigator.mediaDevices?.getUserMedia;
  }

  choose(img) {
    this.words.textContent = "";
    this.place.set({ img, corrupt: undefined, target: undefined, against: undefined, classes: undefined });
  }

  async send(file) {
    if (!file) return;
    this.words.textContent = "Uploading.";
    try {
      this.choose(await this.place.source.upload(file));
    } catch (error) {
      this.words.textContent = error.message;
    }
    this.file.value = "";
  }

  // A picture of what the camera sees, in a dialogue.
  async photograph() {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      this.words.textContent = "The camera cannot be used: the browser does not allow it, or there is none.";
      return;
    }
    const video = node("video", { autoplay: true, playsinline: true });
    video.muted = true;
    video.srcObject = stream;
    const take = () => {
      const canvas = node("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => this.send(blob), "image/jpeg", 0.9);
      dialogue.close();
    };
    const dialogue = node("dialog", { class: "pz-dialogue", "aria-label": "Camera", onclose: () => { stream.getTracks().forEach((track) => track.stop()); dialogue.remove(); } },
      video, node("div", { class: "pz-own" }, node("button", { type: "button", onclick: take }, "Take the picture"), node("button", { type: "button", onclick: () => dialogue.close() }, "Cancel")));
    this.element.append(dialogue);
    dialogue.showModal();
  }
}

// White ink on black, with a pen or with keys: arrows move, Space draws.
class Pad {
  constructor(send) {
    this.send = send;
    const size = SIDE * LARGER;
    this.canvas = node("canvas", { class: "pz-pad", width: size, height: size, tabindex: 0, role: "application", "aria-label": "Drawing. Arrow keys move the pen, Space draws, Backspace clears." });
    const button = (text, onclick) => node("button", { type: "button", onclick }, text);
    this.element = node("dialog", { class: "pz-dialogue", "aria-label": "Draw an image" }, this.canvas,
      node("div", { class: "pz-own" }, button("Use the drawing", () => this.finish()), button("Clear", () => this.clear()), button("Cancel", () => this.element.close())));
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.pen = [size / 2, size / 2];
    let last = null;
    const at = (event) => {
      const bounds = this.canvas.getBoundingClientRect();
      return [((event.clientX - bounds.left) / bounds.width) * size, ((event.clientY - bounds.top) / bounds.height) * size];
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      last = at(event);
      this.stroke(last, last);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      const next = at(event);
      this.stroke(last, next);
      last = next;
    });
    ["pointerup", "pointercancel"].forEach((type) => this.canvas.addEventListener(type, () => { last = null; }));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  open() {
    this.clear();
    this.element.showModal();
    this.canvas.focus();
  }

  key(event) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move && ![" ", "Backspace"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "Backspace") this.clear();
    if (event.key === " ") this.stroke(this.pen, this.pen);
    if (!move) return;
    const next = this.pen.map((x, i) => Math.max(0, Math.min(SIDE * LARGER, x + move[i] * LARGER)));
    if (event.shiftKey) this.stroke(this.pen, next);
    this.pen = next;
  }

  clear() {
    this.context.fillStyle = "#000000";
    this.context.fillRect(0, 0, SIDE * LARGER, SIDE * LARGER);
  }

  stroke(from, to) {
    Object.assign(this.context, { strokeStyle: "#ffffff", lineWidth: 2.4 * LARGER, lineCap: "round", lineJoin: "round" });
    this.context.beginPath();
    this.context.moveTo(...from);
    this.context.lineTo(...to);
    this.context.stroke();
  }

  // The mean of each square of the pad in 16 levels, two in a byte.
  finish() {
    const { data } = this.context.getImageData(0, 0, SIDE * LARGER, SIDE * LARGER);
    const levels = [];
    for (let p = 0; p < SIDE * SIDE; p += 1) {
      let sum = 0;
      for (let i = 0; i < LARGER * LARGER; i += 1) {
        const [x, y] = [(p % SIDE) * LARGER + (i % LARGER), Math.floor(p / SIDE) * LARGER + Math.floor(i / LARGER)];
        sum += data[4 * (y * SIDE * LARGER + x)];
      }
      levels.push(Math.round(sum / (LARGER * LARGER * 17)));
    }
    let bytes = "";
    for (let p = 0; p < levels.length; p += 2) bytes += String.fromCharCode((levels[p] << 4) | (levels[p + 1] || 0));
    this.element.close();
    this.send(`ink:${SIDE}:${btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`);
  }
}
