// Files of numbers, made in the page: .npy and .npz as numpy reads them, and words inside of a PNG.

const TEXT = new TextEncoder();
const CRC = Uint32Array.from({ length: 256 }, (_, i) => {
  let value = i;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

export function crc32(bytes) {
  let value = 0xffffffff;
  for (let i = 0; i < bytes.length; i += 1) value = CRC[(value ^ bytes[i]) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

export function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    all.set(part, place);
    place += part.length;
  }
  return all;
}

function little(...fields) {
  const bytes = [];
  for (const [size, value] of fields) for (let i = 0; i < size; i += 1) bytes.push(Math.floor(value / 256 ** i) & 255);
  return Uint8Array.from(bytes);
}

const bytesOf = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const KINDS = new Map([[Uint8Array, "|u1"], [Uint16Array, "<u2"], [Int32Array, "<i4"], [Uint32Array, "<u4"], [Float32Array, "<f4"], [Float64Array, "<f8"]]);

function npyOf(kind, shape, data) {
  const head = `{'descr': '${kind}', 'fortran_order': False, 'shape': (${shape.map((n) => `${n},`).join(" ")}), }`;
  const spare = 63 - ((10 + head.length) % 64);
  const text = TEXT.encode(`${head}${" ".repeat(spare)}\n`);
  return joined([Uint8Array.of(0x93, 78, 85, 77, 80, 89, 1, 0), little([2, text.length]), text, data]);
}

// Numbers {shape, values} as an .npy file; a plain array becomes 64-bit, and what is no number becomes NaN.
export function npy({ shape, values }) {
  const array = KINDS.has(values.constructor) ? values : Float64Array.from(values, (value) => (value === null ? NaN : value));
  return npyOf(KINDS.get(array.constructor), shape, bytesOf(array));
}

// A text as an .npy file without axes: str(numpy.load(...)["name"]).
export function npyText(words) {
  const points = Uint32Array.from(words, (letter) => letter.codePointAt(0));
  return npyOf(`<U${Math.max(points.length, 1)}`, [], points.length ? bytesOf(points) : new Uint8Array(4));
}

// A ZIP archive without compression: {name: bytes} -> bytes.
export function zipped(files) {
  const [bodies, entries] = [[], []];
  let place = 0;
  for (const [name, data] of Object.entries(files)) {
    const title = TEXT.encode(name);
    // Version 2.0, names in UTF-8, stored, 1 January 1980.
    const about = little([2, 20], [2, 0x800], [2, 0], [2, 0], [2, 33], [4, crc32(data)], [4, data.length], [4, data.length], [2, title.length], [2, 0]);
    bodies.push(little([4, 0x04034b50]), about, title, data);
    entries.push(little([4, 0x02014b50], [2, 20]), about, little([2, 0], [2, 0], [2, 0], [4, 0], [4, place]), title);
    place += 30 + title.length + data.length;
  }
  const directory = joined(entries);
  const count = Object.keys(files).length;
  const end = little([4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, directory.length], [4, place], [2, 0]);
  return joined([...bodies, directory, end]);
}

// A PNG with words in it (an iTXt chunk after its head), which exiftool and Pillow show.
export function pngWithText(png, key, words) {
  const body = joined([TEXT.encode("iTXt"), TEXT.encode(key), Uint8Array.of(0, 0, 0, 0, 0), TEXT.encode(words)]);
  const big = (value) => little([4, value]).reverse();
  const head = 33; // the signature and the first chunk, IHDR
  return joined([png.subarray(0, head), big(body.length - 4), body, big(crc32(body)), png.subarray(head)]);
}
