// Numbers in files beside the page, each a script that calls PRISMA_PACK(name, base64), as prisma/view/browser/static.py
// writes them: scripts load from a disk too, where a page may not read data.
import { unpack } from "./pack.js";

const handedOver = new Map(); // name -> base64, until it is read
window.PRISMA_PACK = (name, text) => handedOver.set(name, text);

// A promise of {facts, arrays}; `missing` is what is said if there is no such file.
export function packBeside(base, name, missing) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `${base}${name}.js`;
    script.onload = () => {
      const text = handedOver.get(name);
      handedOver.delete(name);
      script.remove();
      resolve(unpack(new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))])));
    };
    script.onerror = () => {
      script.remove();
      reject(new Error(missing));
    };
    document.head.append(script);
  });
}
