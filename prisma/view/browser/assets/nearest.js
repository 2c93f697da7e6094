// What an address asks for may not exist: then the nearest figure is drawn, and the reason is said.
import { DEFAULTS } from "./state.js";
import { OF_IMAGE, OF_MODEL } from "./head.js";
import { Unanswered } from "./source.js";

const IMAGE_KEYS = ["img", ...Object.keys(OF_IMAGE)];
// Keys that may be to blame, together; which of them are is found by leaving them out, the least important first.
const OF_A_MODEL = [["prompts"], ["rev"], ["model", ...Object.keys(OF_MODEL), ...IMAGE_KEYS]];
const OF_A_FIGURE = [["ablate"], ["cell"], ["sort"], ["classes"], ["against"], ["corrupt"], ["target", "against"], IMAGE_KEYS, ["step"]];

const without = (state, keys) => ({ ...state, ...Object.fromEntries(keys.map((key) => [key, DEFAULTS[key]])) });

// What `draw(state)` gives, or else draw(the state without one of these groups of keys, or without all), after `said` has
// got the reason. What is not the address's fault is thrown.
async function nearestOf(groups, state, said, draw) {
  try {
    return await draw(state);
  } catch (error) {
    if (error instanceof Unanswered) throw error;
    const blamed = groups.filter((keys) => keys.some((key) => state[key] !== DEFAULTS[key]));
    const fewer = blamed.length > 1 ? [...blamed, blamed.flat()] : blamed;
    for (const keys of fewer) {
      const found = await draw(without(state, keys)).then((value) => ({ value }), () => null);
      if (!found) continue;
      said.push(error.message);
      return found.value;
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
