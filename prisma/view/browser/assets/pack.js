// Reads what prisma/view/browser/payload.py writes: facts, and arrays as typed arrays over one buffer.

export async function unpack(blob) {
  const buffer = await new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const { facts, arrays } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const start = Math.ceil((4 + length) / 8) * 8;
  const kinds = { uint8: Uint8Array, uint16: Uint16Array, float32: Float32Array };
  const read = ({ type, shape, offset }) => {
    const count = shape.reduce((a, b) => a * b, 1);
    return { type, shape, values: new kinds[type](buffer, start + offset, count) };
  };
  return { facts, arrays: Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, read(array)])) };
}

// Numbers of an array of fractions or of any numbers: at(i, j, ...), and rows without copying what is stored.
export class Numbers {
  constructor({ type, shape, values }) {
    Object.assign(this, { shape, values, scale: type === "uint16" ? 1 / 65535 : 1 });
    this.strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  }

  at(...index) {
    let place = 0;
    for (let axis = 0; axis < index.length; axis += 1) place += index[axis] * this.strides[axis];
    return this.values[place] * this.scale;
  }

  // The numbers of the last axes, as an array of its own.
  row(...index) {
    let start = 0;
    for (let axis = 0; axis < index.length; axis += 1) start += index[axis] * this.strides[axis];
    const count = index.length ? this.strides[index.length - 1] : this.values.length;
    return Array.from(this.values.subarray(start, start + count), (value) => value * this.scale);
  }
}
