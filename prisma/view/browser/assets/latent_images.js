// An image as a latent sees it: bright and framed where the latent is active, dark elsewhere.
import { node, sharp } from "./core.js";

const DARKEST = 0.84; // how much of the light goes where the latent is not active

// shares: for each patch how active the latent is there, 0 to 1, row by row; null lights all of it. Patches above `least`
// are framed. The canvas is as wide as its place.
export function litImage(name) {
  const canvas = node("canvas", { class: "pz-lit", role: "img", "aria-label": name });
  let shown = null;
  let width = 0;
  const paint = () => {
    width = canvas.clientWidth || width || 150;
    const { image, shares, grid, least } = shown;
    const height = (width * image.height) / image.width;
    const context = sharp(canvas, width, height);
    context.imageSmoothingEnabled = image.width >= width / 2;
    context.drawImage(image, 0, 0, width, height);
    if (!shares || !grid) return;
    const [rows, columns] = grid;
    const [xs, ys] = [edgesOf(width, columns), edgesOf(height, rows)];
    for (let p = 0; p < rows * columns; p += 1) {
      const [row, column] = [Math.floor(p / columns), p % columns];
      context.fillStyle = `rgba(8,10,18,${(DARKEST * (1 - Math.sqrt(Math.max(0, shares[p])))).toFixed(3)})`;
      context.fillRect(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row]);
    }
    frame(context, shares, grid, least, xs, ys);
  };
  new ResizeObserver(() => shown && canvas.clientWidth && canvas.clientWidth !== width && paint()).observe(canvas);
  const draw = (image, shares, grid, least = 0) => {
    shown = { image, shares, grid, least };
    paint();
  };
  return { element: canvas, draw };
}

const edgesOf = (size, count) => Array.from({ length: count + 1 }, (_, i) => Math.round((i * size) / count));

// A line around the patches where it is active: on a dark patch no light is seen.
function frame(context, shares, [rows, columns], least, xs, ys) {
  const isOn = (row, column) => row >= 0 && column >= 0 && row < rows && column < columns && shares[row * columns + column] > least;
  context.beginPath();
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      if (!isOn(row, column)) continue;
      const [left, right, top, bottom] = [xs[column] + 0.5, xs[column + 1] - 0.5, ys[row] + 0.5, ys[row + 1] - 0.5];
      const line = (...ends) => { context.moveTo(ends[0], ends[1]); context.lineTo(ends[2], ends[3]); };
      if (!isOn(row - 1, column)) line(left, top, right, top);
      if (!isOn(row + 1, column)) line(left, bottom, right, bottom);
      if (!isOn(row, column - 1)) line(left, top, left, bottom);
      if (!isOn(row, column + 1)) line(right, top, right, bottom);
    }
  }
  context.strokeStyle = "rgba(255,190,60,.85)";
  context.lineWidth = 1;
  context.stroke();
}

// Bytes of a map [token], 0 to 255 of its largest -> shares of its patches; null where tokens have no place.
export function sharesOf(bytes, prefix, grid) {
  return grid ? Array.from(bytes.subarray(prefix), (value) => value / 255) : null;
}
