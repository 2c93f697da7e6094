"""Causal tracing of a language model: in which layers and tokens does it hold what it knows about a subject?

Three runs are compared: the clean run; the corrupt runs, in which noise is added to the embeddings of the subject's
tokens; and restored runs, which are corrupt runs in which one state has its value of the clean run:

    total effect     TE = p(clean) - p(corrupt)
    indirect effect  IE[token, layer] = p(restored) - p(corrupt)        p: probability of the answer, mean over draws

The restored states are the stream after a block (`hidden`), or what the MLPs or the attentions of a window of layers
write. With `sever`, later outputs of MLPs or attentions at that token keep their values of the corrupt run: what is
left of the effect does without them. All states are restored under the same noise.

Source: Meng et al. 2202.05262 (ROME).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prisma.analysis.result import Result
from prisma.analysis.statistics import standard_error
from prisma.errors import PrismaError, quoted
from prisma.language.anatomy import Anatomy, anatomy, evaluating
from prisma.language.prompts import Prompt, answer_ids, locate
from prisma.language.restored_runs import RestoredRuns
from prisma.view.figures.tracing import draw_tracing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("hidden", "mlp", "attention")
WINDOW = 10  # layers of MLPs or attentions that ROME restores at once


class UnknownFactError(PrismaError):
    """The model does not answer as it should, so there is no knowledge to trace."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CausalTrace(Result):
    """Indirect effects of restoring each state of one prompt.

    An effect close to `total` means that the state carries all that the model needs of the subject. Rows before the
    subject are zero: the noise does not reach them.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("token", "layer"),
        "stderr": ("token", "layer"),
        "restored": ("draw", "token", "layer"),
        "corrupt": ("draw",),
        "clean": (),
    }

    restored: Tensor  # [draw, token, layer]: probability of the answer
    corrupt: Tensor  # [draw]
    clean: Tensor  # a number

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        """Tokens as text, those of the subject with a star."""
        start, end = self.metadata["subject_tokens"]
        words = self.metadata["tokens"]
        return {"token": [f"{word}*" if start <= i < end else word for i, word in enumerate(words)]}

    @property
    def effect(self) -> Tensor:
        """[token, layer]: mean over draws of the noise."""
        return (self.restored - self.corrupt[:, None, None]).mean(0)

    @property
    def stderr(self) -> Tensor:
        """[token, layer]: standard error of `effect` over draws of the noise; NaN for a single draw."""
        return standard_error(self.restored - self.corrupt[:, None, None])

    @property
    def total(self) -> float:
        """TE: what the noise takes away of the probability of the answer."""
        return float(self.clean - self.corrupt.mean())

    def plot(self, array: str | None = None) -> "Figure":
        """The picture of the paper: the probability of the answer by restored token and layer; or another array."""
        if array is not None:
            return super().plot(array)
        facts = self.metadata
        return draw_tracing(
            self.restored.mean(0), self.names["token"], facts["kind"], low=float(self.corrupt.mean()),
            answer=facts["answer"], window=facts["window"], sever=facts["sever"],
        )  # fmt: skip

    def report(self, classes: Sequence[str] = ()) -> str:
        """The three probabilities, and the state whose restoring brings back most."""
        effect, facts = self.effect, self.metadata
        token, layer = divmod(int(effect.argmax()), effect.shape[1])
        return (
            f"{quoted(facts['prompt'], 200)} -> {quoted(facts['answer'])}: probability {self.clean:.3f}, "
            f"with noise on the subject {self.corrupt.mean():.3f}; most comes back with "
            f"{quoted(facts['tokens'][token])} at layer {layer}: {effect.max():+.3f} of {self.total:.3f}"
        )


def causal_trace(
    model: nn.Module | Anatomy,
    tokenizer: Any,
    prompt: str,
    subject: str,
    *,
    answer: str | None = None,
    kind: str = "hidden",
    window: int | None = None,
    sever: str | None = None,
    noise: float = 3.0,
    sigma: float | None = None,
    subjects: Sequence[str] = (),
    samples: int = 10,
    seed: int = 1,
    batch: int = 128,
) -> CausalTrace:
    """In which layers and tokens does a language model hold what it knows about a subject?

    Args:
        model: any causal language model of transformers.
        prompt: text with the subject in it, or with `{}` in its place, that ends where the answer begins.
        answer: what the model should say; only its first token is used. If it is left out, what the model does say.
        kind: which states are restored: `hidden`, `mlp`, `attention`.
        window: layers that are restored at once (default: 1 for `hidden`, else 10, as in ROME).
        sever: `mlp` or `attention`, of `hidden` alone.
        noise: the standard deviation of the noise, in those of the embeddings (`embedding_scale`).
        sigma: the standard deviation of the noise itself, in place of `noise` times that of the embeddings.
        subjects: over which the standard deviation of embeddings is taken, as ROME's code does; without any, over the
            whole vocabulary. `metadata["sigma_of"]` says which.
        samples, seed: draws of the noise.
        batch: the largest number of rows in one pass.

    Raises:
        UnknownFactError: the model answers something else than `answer`.
        PrismaError: the subject is not in the prompt, an option is unknown, or the model has other parts.
    """
    parts = anatomy(model)
    window = expect_options(kind, window, sever, samples, noise if sigma is None else sigma)
    place = locate(tokenizer, prompt, subject)
    with evaluating(parts.model):
        wanted = None if answer is None else int(answer_ids(tokenizer, place.text, answer)[0])
        scale = noise * embedding_scale(parts, tokenizer, subjects) if sigma is None else sigma
        draws = scale * _noise(parts, place, samples, seed)
        runs = RestoredRuns.of(parts, place, kind, sever, draws)
        said = _expect_known(runs, tokenizer, wanted, answer)
        restored = _restored(runs, said, window, batch)
    clean, corrupt = (x.double().softmax(-1)[..., said].cpu() for x in (runs.clean_logits, runs.corrupt_logits))
    return CausalTrace(
        metadata={
            "analysis": "causal_trace", "prompt": place.text, "subject": subject, "tokens": list(place.words),
            "subject_tokens": [place.start, place.end], "answer": tokenizer.decode([said]), "kind": kind,
            "window": window, "sever": sever, "noise": noise if sigma is None else None, "sigma": scale,
            "sigma_of": "given" if sigma is not None else "subjects" if subjects else "vocabulary",
            "samples": samples, "seed": seed, "groups": place.groups(),
        },
        restored=restored.cpu(), corrupt=corrupt, clean=clean,
    )  # fmt: skip


def _expect_known(runs: RestoredRuns, tokenizer: Any, wanted: int | None, answer: str | None) -> int:
    """The token with which the clean run continues the prompt; raises UnknownFactError if it is not the wanted one."""
    said = int(runs.clean_logits.argmax())
    if wanted is not None and said != wanted:
        p = runs.clean_logits.double().softmax(-1)
        raise UnknownFactError(
            f"expected the model to know that {quoted(runs.prompt.text, 200)} continues with {quoted(answer)}; found "
            f"{quoted(tokenizer.decode([said]))} (p = {p[said]:.3f}), and {quoted(answer)} with p = {p[wanted]:.3f}: "
            "the model does not know this fact, so there is nothing to trace"
        )
    return said


@torch.no_grad()
def embedding_scale(parts: Anatomy, tokenizer: Any, subjects: Sequence[str] = ()) -> float:
    """The standard deviation of all numbers in the embeddings of the subjects' tokens, or of the whole vocabulary."""
    if not subjects:
        every = torch.arange(len(parts.table), device=parts.device)
        return float(torch.cat([parts.embedding(some) for some in every.split(4096)]).double().std())
    ids = [i for subject in subjects for i in tokenizer(subject, add_special_tokens=False)["input_ids"]]
    return float(parts.embedding(torch.tensor(ids, device=parts.device)).double().std())


def expect_options(kind: str, window: int | None, sever: str | None, samples: int, noise: float) -> int:
    """The window; raises PrismaError for an option that is none."""
    if kind not in KINDS or sever not in (None, "mlp", "attention") or (sever and kind != "hidden"):
        raise PrismaError(
            f"expected kind to be one of {', '.join(KINDS)}, and sever to be mlp or attention, of kind hidden alone; "
            f"found kind={quoted(kind)} and sever={quoted(sever)}"
        )
    if window is None:
        window = 1 if kind == "hidden" else WINDOW
    if window < 1 or samples < 1 or not noise > 0:
        raise PrismaError(
            f"expected a window and samples of at least 1 and noise above 0; found {window}, {samples} and {noise}"
        )
    return window


def _noise(parts: Anatomy, place: Prompt, samples: int, seed: int) -> Tensor:
    """Standard normal [draw, subject token, embedding], the same for every state that is restored."""
    width = parts.table.shape[1]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((samples, place.end - place.start, width), generator=generator).to(parts.table)


def _restored(runs: RestoredRuns, answer: int, window: int, batch: int) -> Tensor:
    """Probability of the answer [draw, token, layer]; of tokens before the subject it is that of the corrupt run."""
    corrupt = runs.corrupt_logits.double().softmax(-1)[:, answer]
    found = corrupt[:, None, None].repeat(1, len(runs.prompt), len(runs.clean))
    cells, size = runs.cells(), max(batch // len(runs.noise), 1)
    for first in range(0, len(cells), size):
        some = cells[first : first + size]
        p = runs.logits(some, window).double().softmax(-1)[..., answer]
        for (layer, token), values in zip(some, p, strict=True):
            found[:, token, layer] = values
    return found
