"""What a change at the last token of a subject does to a model's answers: the loss by which new values are found.

    L(d) = mean over contexts of -1/n sum log p(answer tokens | context + prompt, d)
           + kl * KL(p_d || p_0) after "S is a"

The change d is added at one place: to what the MLP of a layer writes, or to the stream after a block. What is before it
is computed once.

Source: Meng et al. 2202.05262 (ROME).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prisma.language.anatomy import Anatomy
from prisma.language.keys import Batch, in_contexts
from prisma.language.restored_runs import changed, recorded
from prisma.numbers import exact

ESSENCE = "{} is a"
"""The prompt after which an edit should not change what the model says of the subject."""
KL_WEIGHT = 0.0625


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within, no weight gathers a gradient."""
    trained = [x for x in model.parameters() if x.requires_grad]
    for x in trained:
        x.requires_grad_(False)
    try:
        yield
    finally:
        for x in trained:
            x.requires_grad_(True)


class AnswerLoss:
    """The loss of a change, as a function of it; `start` is what the place computes without the change.

    Args:
        part: the module whose output at the subject's last token is changed: of `parts.mlp_out` or `parts.blocks`.
        kl: weight of the divergence after "S is a".
    """

    def __init__(
        self,
        parts: Anatomy,
        tokenizer: Any,
        part: nn.Module,
        prompt: str,
        subject: str,
        answer: str,
        contexts: Sequence[str],
        kl: float = KL_WEIGHT,
    ) -> None:
        self.parts, self.part, self.kl = parts, part, kl
        rows, lookup, answers = in_contexts(tokenizer, contexts, prompt, subject, answer)
        essence, at, _ = in_contexts(tokenizer, ["{}"], ESSENCE, subject)
        self.batch = Batch.of([*rows, *essence], parts.device)
        self.lookup = torch.cat([lookup, at]).to(parts.device)
        self.answers = [x.to(parts.device) for x in answers]
        self.row = torch.arange(len(self.lookup), device=parts.device)
        is_block = part in parts.blocks
        layer = (parts.blocks if is_block else parts.mlp_out).index(part)
        self.from_block = (layer + is_block) if parts.starts_late else 0
        before = [parts.blocks[self.from_block - 1]] if self.from_block else []
        with torch.no_grad(), recorded([part, *before], len(self.row)) as outputs:
            logits = self.batch.logits(parts.model)
        self.before = outputs[before[0]] if before else None
        self.start = outputs[part][self.row, self.lookup][:-1].mean(0)  # over contexts, without the essence
        self.essence = exact(logits[-1, self.batch.last[-1]]).log_softmax(-1)
        self.probability = self._probability(logits)

    def __call__(self, change: Tensor) -> Tensor:
        logits = self.logits(change)
        essence = exact(logits[-1, self.batch.last[-1]]).log_softmax(-1)
        divergence = (essence.exp() * (essence - self.essence)).sum()
        return self.kl * divergence - self.log_likelihood(logits).mean()

    def logits(self, change: Tensor) -> Tensor:
        """Logits [row, token, word] with the change; the last row is "S is a"."""

        def add(x: Tensor) -> Tensor:
            changed = (exact(x[self.row, self.lookup]) + change).to(x)  # rounded once, as the model computes
            return x.index_put((self.row, self.lookup), changed)

        with self.parts.from_block(self.from_block, self.before), changed([(self.part, add)], len(self.row)):
            return self.batch.logits(self.parts.model)

    @torch.no_grad()
    def probability_now(self) -> float:
        """Of the answer, mean over contexts, as the model is now: with an edit of its weights, or without."""
        return self._probability(self.batch.logits(self.parts.model))

    def _probability(self, logits: Tensor) -> float:
        return self.log_likelihood(logits).exp().mean().item()

    def log_likelihood(self, logits: Tensor) -> Tensor:
        """[context]: mean over the tokens of the answer."""
        return torch.stack(
            [
                exact(x[last - len(answer) : last]).log_softmax(-1).gather(1, answer[:, None]).mean()
                for x, last, answer in zip(logits, self.batch.last.tolist(), self.answers, strict=False)
            ]
        )
