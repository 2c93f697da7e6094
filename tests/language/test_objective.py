"""The loss of a change equals its formula, computed from whole runs of one context after the other."""

from typing import Any

import pytest
import torch

from prisma.language.anatomy import anatomy, replaced, stream
from prisma.language.objective import AnswerLoss, frozen
from tests.language.families import tiny

CONTEXTS = ["{}", "the city of Oslo. {}"]


@pytest.mark.parametrize(("family", "of"), [("GPT2", "mlp"), ("Llama", "hidden"), ("Falcon", "mlp"), ("OPT", "mlp")])
@pytest.mark.parametrize("layer", [0, 2])
def test_equals_its_formula(words: Any, family: str, of: str, layer: int) -> None:
    model = tiny(family)
    parts = anatomy(model)
    part = parts.parts(of)[layer]
    with torch.no_grad():
        loss = AnswerLoss(parts, words, part, "{} was born in", "Ada Brook", "Rome city", CONTEXTS, kl=0.5)
    change = torch.randn(16, generator=torch.Generator().manual_seed(0)).double()

    def after(text: str, at: int, d: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [token, word] with the change at one token."""

        def hook(module: Any, args: Any, output: Any) -> Any:
            x = stream(output).clone()
            x.view(-1, 16)[at] += d
            return replaced(output, x)

        handle = part.register_forward_hook(hook)
        with torch.no_grad():
            found = model(input_ids=torch.tensor([words(text)["input_ids"]])).logits[0].log_softmax(-1)
        handle.remove()
        return found

    rome, city = words.convert_tokens_to_ids(["Rome", "city"])
    bare = after("Ada Brook was born in Rome city", 2, change)
    second = after("the city of Oslo. Ada Brook was born in Rome city", 7, change)
    likelihood = ((bare[5, rome] + bare[6, city]) / 2 + (second[10, rome] + second[11, city]) / 2) / 2
    old, new = (after("Ada Brook is a", 2, d)[-1] for d in (0 * change, change))
    expected = -likelihood + 0.5 * (new.exp() * (new - old)).sum()
    torch.testing.assert_close(loss(change), expected, rtol=1e-6, atol=1e-8)
    with frozen(model):
        change.requires_grad_(True)
        loss(change).backward()
        assert change.grad is not None and all(x.grad is None for x in model.parameters())
    assert all(x.requires_grad for x in model.parameters())
