// A map over the tokens of an image: patches as a grid over the picture, prefix tokens as boxes above it.

// "class", "register 1", "row 2, column 3": tokens as people say them; the prefix comes first, then patches by rows.
function tokenName(scene, token) {
  if (token < scene.prefix.length) return scene.prefix[token];
  const patch = token - scene.prefix.length;
  return `row ${Math.floor(patch / scene.grid[1]) + 1}, column ${(patch % scene.grid[1]) + 1}`;
}
const countTokens = (scene) => scene.prefix.length + scene.grid[0] * scene.grid[1];

// The token that an arrow key leads to.
function neighbour(scene, token, key) {
  const [rows, columns] = scene.grid;
  const first = scene.prefix.length;
  if (token < first) {
    if (key === "ArrowDown") return first + Math.min(token, columns - 1);
    return Math.max(0, Math.min(first - 1, token + ({ ArrowLeft: -1, ArrowRight: 1 }[key] || 0)));
  }
  const row = Math.floor((token - first) / columns) + ({ ArrowUp: -1, ArrowDown: 1 }[key] || 0);
  const column = ((token - first) % columns) + ({ ArrowLeft: -1, ArrowRight: 1 }[key] || 0);
  if (row < 0 && first) return Math.min(column, first - 1);
  return first + Math.max(0, Math.min(rows - 1, row)) * columns + Math.max(0, Math.min(columns - 1, column));
}

// Boxes [x, y, width, height] of all tokens in a map of a given width; `bottom` is its height.
function layout(scene, width, aspect) {
  const [rows, columns] = scene.grid;
  const n = scene.prefix.length;
  const top = n ? Math.max(22, Math.min(30, width / 8)) : 0;
  const above = n ? top + 4 : 0;
  const height = width * aspect;
  const boxes = scene.prefix.map((_, i) => [(i * width) / n + (i ? 1 : 0), 0, width / n - (i ? 1 : 0), top]);
  for (let p = 0; p < rows * columns; p += 1) {
    const [x, y] = [((p % columns) * width) / columns, above + (Math.floor(p / columns) * height) / rows];
    boxes.push([x, y, width / columns, height / rows]);
  }
  return { boxes, above, height, bottom: above + height };
}

function outline(context, [x, y, width, height]) {
  for (const [style, line] of [["rgba(0,0,0,.85)", 4], ["#ffffff", 2]]) {
    context.strokeStyle = style;
    context.lineWidth = line;
    context.strokeRect(x + 2, y + 2, width - 4, height - 4);
  }
}

// Text that can be read on its colour.
function label(context, text, [x, y, width, height], bright) {
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = 2.5;
  context.lineJoin = "round";
  context.strokeStyle = bright ? "rgba(255,255,255,.55)" : "rgba(0,0,0,.6)";
  context.strokeText(text, x + width / 2, y + height / 2 + 0.5);
  context.fillStyle = bright ? "#10131a" : "#ffffff";
  context.fillText(text, x + width / 2, y + height / 2 + 0.5);
}

// draw({scene, image, values, paint, opacity, marked, format}) paints one number per token; only below opacity 1, which
// is the default, does the picture show through the patches, and their colours are no longer those of the colour bar.
// handlers: over(token), out(), pick(token); each is optional.
function tokenMap(name, handlers) {
  const canvas = node("canvas", { class: "pz-map", role: "img", "aria-label": name });
  let shown = null;
  const width = () => canvas.clientWidth || 240;
  const aspect = () => (shown.image ? shown.image.height / shown.image.width : shown.scene.grid[0] / shown.scene.grid[1]);
  const paintAll = () => {
    const place = layout(shown.scene, width(), aspect());
    const context = sharp(canvas, width(), place.bottom);
    if (shown.image) {
      context.imageSmoothingEnabled = shown.image.width >= width();
      context.filter = "grayscale(1)"; // colours are the map's
      context.drawImage(shown.image, 0, place.above, width(), place.height);
      context.filter = "none";
    }
    const first = shown.scene.prefix.length;
    shown.values.forEach((value, token) => {
      const box = place.boxes[token];
      const rgb = shown.paint(value);
      context.globalAlpha = token < first || !shown.image ? 1 : shown.opacity;
      context.fillStyle = css(rgb);
      context.fillRect(...box);
      context.globalAlpha = 1;
      const size = Math.min(12, Math.max(10, box[2] / 5));
      context.font = `500 ${size}px ui-monospace, SFMono-Regular, Menlo, monospace`;
      const number = shown.format(value);
      const texts = token < first ? [`${shown.scene.prefix[token]}  ${number}`, number] : [number];
      const text = texts.find((some) => context.measureText(some).width < box[2] - 8);
      if (text && box[3] > size + 4) label(context, text, box, rgb[0] * 0.3 + rgb[1] * 0.59 + rgb[2] * 0.11 > 150);
    });
    if (shown.marked !== undefined) outline(context, place.boxes[shown.marked]);
  };
  const hit = (event) => {
    if (!shown) return -1;
    const bounds = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    const inside = (box) => x >= box[0] && x < box[0] + box[2] && y >= box[1] && y < box[1] + box[3];
    return layout(shown.scene, width(), aspect()).boxes.findIndex(inside);
  };
  const listen = (type, handler) => handler && canvas.addEventListener(type, (event) => {
    const token = hit(event);
    if (token >= 0) handler(token);
  });
  listen("pointermove", handlers.over);
  listen("click", handlers.pick);
  if (handlers.out) canvas.addEventListener("pointerleave", handlers.out);
  new ResizeObserver(() => shown && paintAll()).observe(canvas);
  const draw = (what) => {
    shown = { opacity: 1, ...what };
    paintAll();
  };
  return { element: canvas, draw };
}

// Lists the strongest tokens in words, for those who do not see the map.
function strongest(scene, values, count, format) {
  const order = values.map((value, token) => [value, token]).sort((a, b) => b[0] - a[0]).slice(0, count);
  return order.map(([value, token]) => [tokenName(scene, token), format(value)]);
}
