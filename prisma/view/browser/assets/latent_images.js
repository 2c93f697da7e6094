// An image as a latent sees it: bright where the latent is active, dark elsewhere.
import { node, sharp } from "./core.js";

const DARKEST = 0.84; // how much of the light goes where the latent is not active

// shares: for each patch how active the latent is there, 0 to 1, row by row; null lights all of it. The canvas is as wide
// as its place.
export function litImage(name) {
  const canvas = node("canvas", { class: "pz-lit", role: "img", "aria-label": name });
  let shown = null;
  let width = 0;
  const paint = () => {
    width = canvas.clientWidth || width || 150;
    const { image, shares, grid } = shown;
    const height = (width * image.height) / image.width;
    const context = sharp(canvas, width, height);
    context.imageSmoothingEnabled = image.width >= width / 2;
    context.drawImage(image, 0, 0, width, height);
    if (!shares || !grid) return;
    const [rows, columns] = grid;
    const edges = (size, count, i) => Math.round((i * size) / count);
    for (let p = 0; p < rows * columns; p += 1) {
      const [row, column] = [Math.floor(p / columns), p % columns];
      const [x, y] = [edges(width, columns, column), edges(height, rows, row)];
      context.fillStyle = `rgba(8,10,18,${(DARKEST * (1 - Math.sqrt(Math.max(0, shares[p])))).toFixed(3)})`;
      context.fillRect(x, y, edges(width, columns, column + 1) - x, edges(height, rows, row + 1) - y);
    }
  };
  new ResizeObserver(() => shown && canvas.clientWidth && canvas.clientWidth !== width && paint()).observe(canvas);
  const draw = (image, shares, grid) => {
    shown = { image, shares, grid };
    paint();
  };
  return { element: canvas, draw };
}

// Bytes of a map [token], 0 to 255 of its largest -> shares of its patches; null where tokens have no place.
export function sharesOf(bytes, prefix, grid) {
  return grid ? Array.from(bytes.subarray(prefix), (value) => value / 255) : null;
}
