"""Causal tracing equals separate runs, one for each state and draw of the noise."""

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prisma.errors import PrismaError
from prisma.language.anatomy import anatomy
from prisma.language.causal_trace import CausalTrace, UnknownFactError, causal_trace, embedding_scale
from prisma.language.mouse import objects
from tests.language.families import FAMILIES, tiny

PROMPT, SUBJECT = "the city of Ada Brook is", "Ada Brook"
START, END = 4, 6  # with <bos>


def naive(
    model: nn.Module, ids: Tensor, noise: Tensor, kind: str, window: int, sever: str | None, answer: int
) -> Tensor:
    """[draw, token, layer]: every cell of every draw is a run of the whole model, with the clean run's values."""
    parts = anatomy(model)
    modules = {"hidden": parts.blocks, "mlp": parts.mlp_out, "attention": parts.attention_out}

    def run(changes: dict[tuple[str, int], Tensor], corrupt: Tensor | None) -> tuple[float, dict[Any, Tensor]]:
        """`changes`: (kind, layer) -> [token, d], NaN where nothing is changed."""
        seen: dict[Any, Tensor] = {}

        def hook(name: str, layer: int) -> Any:
            def change(module: nn.Module, inputs: Any, output: Any) -> Any:
                x = output[0] if isinstance(output, tuple) else output
                x = x.view(1, len(ids), -1)
                if (name, layer) in changes:
                    value = changes[name, layer]
                    x = torch.where(value.isnan(), x, value)
                seen[name, layer] = x[0]
                return (x, *output[1:]) if isinstance(output, tuple) else x.view_as(output)

            return change

        def corrupted(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
            if corrupt is None:
                return None
            output = output.clone()
            output[0, START:END] += corrupt
            return output

        with ExitStack() as stack, torch.no_grad():
            stack.callback(parts.embedding.register_forward_hook(corrupted).remove)
            for name, some in modules.items():
                for layer, part in enumerate(some):
                    stack.callback(part.register_forward_hook(hook(name, layer)).remove)
            logits = model(input_ids=ids[None], use_cache=False).logits[0, -1]
        return logits.softmax(-1)[answer].item(), seen

    _, clean = run({}, None)
    n_layers = len(parts.blocks)
    found = torch.zeros(len(noise), len(ids), n_layers, dtype=torch.float64)
    for s, corrupt in enumerate(noise):
        _, dirty = run({}, corrupt)
        for token in range(len(ids)):
            for layer in range(n_layers):

                def only(states: Tensor, token: int = token) -> Tensor:
                    return torch.full_like(states, torch.nan).index_put((torch.tensor([token]),), states[token])

                near = range(max(0, layer - window // 2), min(n_layers, layer - (-window // 2)))
                changes = {(kind, other): only(clean[kind, other]) for other in near}
                if sever:
                    changes |= {(sever, other): only(dirty[sever, other]) for other in range(layer + 1, n_layers)}
                found[s, token, layer] = run(changes, corrupt)[0]
    return found


@pytest.mark.parametrize(
    ("family", "kind", "window", "sever"),
    [
        *((family, "hidden", 1, None) for family in ("GPTNeo", "GPTNeoX", "Llama", "Phi")),
        ("GPT2", "hidden", 2, "mlp"),
        ("Falcon", "hidden", 1, "attention"),
        ("Gemma2", "mlp", 3, None),
        ("Bloom", "mlp", 2, None),
        ("OPT", "hidden", 1, "mlp"),
        ("OPT", "mlp", 1, None),
        ("Mistral", "attention", 2, None),
    ],
)
@pytest.mark.parametrize("batch", [5, 128])
def test_equals_separate_runs(words: Any, family: str, kind: str, window: int, sever: str | None, batch: int) -> None:
    model = tiny(family)
    found = causal_trace(
        model, words, PROMPT, SUBJECT, kind=kind, window=window, sever=sever, sigma=1.5, samples=2, batch=batch
    )
    ids = torch.tensor(words(PROMPT)["input_ids"])
    width = anatomy(model).embedding.weight.shape[1]  # type: ignore[union-attr]
    noise = 1.5 * torch.randn((2, END - START, width), generator=torch.Generator().manual_seed(1)).double()  # type: ignore[call-overload]
    answer = int(model(input_ids=ids[None]).logits[0, -1].argmax())
    expected = naive(model, ids, noise, kind, window, sever, answer)
    torch.testing.assert_close(found.restored, expected, rtol=1e-9, atol=1e-12)
    assert found.metadata["answer"] == words.decode([answer])
    assert (found.effect[:START] == 0).all()
    assert found.effect[START:].abs().max() > 1e-6
    if (
        kind == "hidden" and window == 1
    ):  # the last state of the last layer decides the answer, the others of that layer do not
        assert found.effect[-1, -1].item() == pytest.approx(found.total, abs=1e-9)
        torch.testing.assert_close(found.effect[:-1, -1], torch.zeros(len(ids) - 1, dtype=torch.float64))


def test_every_family_is_traced(words: Any) -> None:
    for family in FAMILIES:
        found = causal_trace(tiny(family), words, PROMPT, SUBJECT, samples=1, sigma=1.0)
        assert found.effect[-1, -1].item() == pytest.approx(found.total, abs=1e-9), family


def test_noise_is_three_deviations_of_the_subjects_embeddings(words: Any) -> None:
    model = tiny("GPT2")
    weight = anatomy(model).embedding.weight.detach()  # type: ignore[union-attr]
    ids = words("Ada Brook")["input_ids"][1:] + words("Ben")["input_ids"][1:]
    found = causal_trace(model, words, PROMPT, SUBJECT, subjects=["Ada Brook", "Ben"], samples=1)
    assert found.metadata["sigma"] == pytest.approx(3 * weight[ids].std().item())  # type: ignore[index]
    assert found.metadata["sigma_of"] == "subjects"
    assert embedding_scale(anatomy(model), words) == pytest.approx(weight.std().item())  # type: ignore[operator]


def test_result(words: Any, tmp_path: Any) -> None:
    found = causal_trace(tiny("Llama"), words, "the city of {} is", SUBJECT, samples=3)
    assert found.names["token"] == ["<bos>", "the", "city", "of", "Ada*", "Brook*", "is"]
    assert found.effect.shape == found.stderr.shape == (7, 3)
    again = CausalTrace.from_npz(found.to_npz(tmp_path / "trace.npz"))
    torch.testing.assert_close(again.restored, found.restored)
    assert again.total == found.total
    figure = found.plot()
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.get_yticklabels()] == found.names["token"]
    torch.testing.assert_close(torch.tensor(panel.images[0].get_array()), found.restored.mean(0))
    assert found.plot("stderr").axes and "of" in found.report()


def test_bad_input(words: Any, loaded: tuple[nn.Module, Any]) -> None:
    model = tiny("GPT2")
    with pytest.raises(PrismaError, match=r"expected the subject 'Ada Broke' in the prompt .*nearest words: Brook"):
        causal_trace(model, words, PROMPT, "Ada Broke")
    with pytest.raises(PrismaError, match="expected kind to be one of"):
        causal_trace(model, words, PROMPT, SUBJECT, kind="mlp", sever="attention")
    with pytest.raises(PrismaError, match="noise above 0; found 1, 10 and 0"):
        causal_trace(model, words, PROMPT, SUBJECT, noise=0.0)
    with pytest.raises(UnknownFactError, match=r"continues with 'Lima'; found 'Rome' .* does not know this fact"):
        mouse, tokenizer = loaded
        name = next(name for (name, of), word in objects().items() if of == "city" and word == "Rome")
        causal_trace(mouse, tokenizer, "{} was born in", name, answer="Lima")
