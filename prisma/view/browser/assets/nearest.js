// What an address asks for may not exist: then the nearest figure is drawn, and the reason is said.
import { DEFAULTS } from "./state.js";
import { OF_IMAGE, OF_MODEL } from "./head.js";
import { Unanswered } from "./source.js";

const IMAGE_KEYS = ["img", ...Object.keys(OF_IMAGE)];
// Keys that may be to blame, together; which of them are is found by leaving them out, the least important first.
const OF_A_MODEL = [["prompts"], ["rev"], ["model", ...Object.keys(OF_MODEL), ...IMAGE_KEYS]];
const OF_A_FIGURE = [["ablate"], ["change"], ["latent", "change"], ["number"], ["units", "number"], ["coder", "latent", "change"], ["cell"], ["dose"], ["reach"], ["where"], ["steer"], ["direction"], ["sort"], ["classes"], ["against"], ["corrupt"], ["target", "against"], IMAGE_KEYS, ["step"]];

const without = (state, keys) => ({ ...state, ...Object.fromEntries(keys.map((key) => [key, DEFAULTS[key]])) });

// What `draw(state)` gives; where that fails, what it gives without the keys that are to blame, after `said` has got the
// reason. Those are to blame without which it fails no longer, or for another reason. Other faults are thrown.
async function nearestOf(groups, state, said, draw) {
  try {
    return await draw(state);
  } catch (error) {
    if (error instanceof Unanswered) throw error;
    for (const keys of groups.filter((some) => some.some((key) => state[key] !== DEFAULTS[key]))) {
      const fewer = without(state, keys);
      const found = await draw(fewer).then((value) => ({ value }), (next) => ({ next }));
      if (found.next instanceof Unanswered) throw found.next;
      if (found.next?.message === error.message) continue;
      said.push(error.message);
      return found.next ? nearestOf(groups, fewer, said, draw) : found.value;
    }
    throw error;
  }
}

// The model of a state, {facts, arrays}, with a state that this model has.
export function nearestModel(source, state, said) {
  return nearestOf(OF_A_MODEL, state, said, async (some) => {
    const named = { ...some, model: some.model ?? (await source.listed()).models[0] };
    return { model: await source.ask("model", named), state: named };
  });
}

export const nearestFigure = (state, said, draw) => nearestOf(OF_A_FIGURE, state, said, draw);
