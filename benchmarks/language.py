"""How fast causal tracing is, beside one whole run of the model for each state, as published programs trace.

    python -m benchmarks.language [--rounds 5] [--threads N] [--layers 12] [--tokens 10] [--samples 10] [--json FILE]

A GPT-2 of the size of the small one with random weights, a prompt whose subject is its second to fifth token. Both give
the same effects, which is checked in every round. The loop restores one state at a time, under all draws of the noise
at once. After every round, what is known is printed and written.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.timing import CLOCKS, interleave
from prisma.language.anatomy import anatomy, evaluating
from prisma.language.causal_trace import causal_trace
from prisma.language.mouse import word_tokenizer
from prisma.language.prompts import Prompt, locate
from prisma.language.restored_runs import RestoredRuns


def loop(model: nn.Module, prompt: Prompt, noise: torch.Tensor, answer: int) -> torch.Tensor:
    """Probability of the answer [draw, token, layer]; every state is restored in a whole run of the model."""
    parts = anatomy(model)
    with evaluating(model):
        runs = RestoredRuns.of(parts, prompt, "hidden", None, noise)
        whole = RestoredRuns(**{**vars(runs), "parts": type(parts)(**{**vars(parts), "starts_late": False})})
        cells = [(layer, token) for layer in range(len(parts.blocks)) for token in range(len(prompt))]
        found = [whole.logits([cell], 1)[0].double().softmax(-1)[:, answer] for cell in cells]
    return torch.stack(found, 1).unflatten(1, (len(parts.blocks), -1)).transpose(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=10)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"), help="written every round")
    asked = parser.parse_args()
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 32, "n_head": 4} if asked.tiny else {"n_embd": 768, "n_head": 12}
    names = [f"w{i}" for i in range(asked.tokens)]
    tokenizer = word_tokenizer(names)
    vocabulary = {"vocab_size": 64 if asked.tiny else 50257, "n_layer": asked.layers}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **vocabulary, bos_token_id=0, eos_token_id=1)).to(asked.device).eval()
    text, subject = " ".join(names), " ".join(names[1:5])
    prompt = locate(tokenizer, text, subject)
    noise = torch.randn(
        (asked.samples, prompt.end - prompt.start, sizes["n_embd"]), generator=torch.Generator().manual_seed(1)
    )
    found: dict[str, torch.Tensor] = {}

    def ours() -> None:
        trace = causal_trace(model, tokenizer, text, subject, sigma=1.0, samples=asked.samples)
        found["ours"] = trace.restored

    def theirs() -> None:
        with torch.no_grad():
            answer = int(model(input_ids=prompt.ids.to(asked.device)[None]).logits[0, -1].argmax())
        found["loop"] = loop(model, prompt, noise.to(asked.device), answer).cpu()

    def told(seconds: dict[str, list[float]]) -> None:
        torch.testing.assert_close(found["ours"], found["loop"], rtol=1e-3, atol=1e-7)
        if not seconds["ours"]:
            print("warm", flush=True)
            return
        line = summary(seconds) | {"states": found["ours"][0].numel(), **vars(asked), "json": None}
        asked.json.write_text(json.dumps(line, indent=1) + "\n")
        print(json.dumps(summary(seconds)), flush=True)

    interleave({"ours": ours, "loop": theirs}, asked.rounds, CLOCKS[asked.clock], told=told)


def summary(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Medians of the seconds, and of the ratio of two in one round, with its least and largest."""
    ratios = sorted(a / b for a, b in zip(seconds["loop"], seconds["ours"], strict=True))
    return {
        **{name: round(median(times), 3) for name, times in seconds.items()},
        "loop / ours": [round(x, 2) for x in (median(ratios), ratios[0], ratios[-1])],
        "measured": len(ratios),
    }


if __name__ == "__main__":
    main()
