"""A language model with an edit, as a folder: the model as transformers saves it, the edit, and what the edit does.

    config.json, model.safetensors, ...    the edited model and its tokenizer, for `prisma.language.load`
    edit.safetensors                       the edit (`WeightEdit`): u and v of each weight, and what it is for
    measures.json                          what it does to its facts, and to texts that should stay (`RewriteMeasures`)

All is there or nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prisma.analysis.statistics import mean_interval
from prisma.editing.folder import EDIT, MEASURES
from prisma.editing.weight_edit import WeightEdit
from prisma.errors import PrismaError
from prisma.files import new_folder, read_json, write_json
from prisma.filesystem import given
from prisma.language.anatomy import Anatomy, anatomy, evaluating
from prisma.language.edit_scores import ROWS, answer_likelihoods
from prisma.language.keys import Batch
from prisma.language.prompts import filled, token_ids


@dataclass(frozen=True)
class Answer:
    """The new answer of a fact before and after an edit.

    Attributes:
        prompt, subject, new: of the fact.
        likelihood: (before, after), the geometric mean over the answer's tokens.
        said: (before, after), the share of these tokens that the model would say itself.
    """

    prompt: str
    subject: str
    new: str
    likelihood: tuple[float, float]
    said: tuple[float, float]


@dataclass(frozen=True)
class TextLoss:
    """How well a model predicts texts before and after an edit: the negative log-likelihood of a token, in nats.

    Attributes:
        texts: how many.
        loss: (before, after), the mean over texts of the mean over their tokens.
        interval: of the change, from a bootstrap over the texts; of one text its change twice, which says nothing.
    """

    texts: int
    loss: tuple[float, float]
    interval: tuple[float, float]


@dataclass(frozen=True)
class RewriteMeasures:
    """What an edit does to the facts that it is for, and to texts that should stay as they are."""

    facts: tuple[Answer, ...]
    texts: TextLoss | None

    def to_dict(self) -> dict[str, Any]:
        """The measures as JSON has them."""
        return asdict(self)


def facts_of_edit(about: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(prompt, subject, new answer) of each fact of an edit. Raises PrismaError: it is no edit of facts."""
    rows = about.get("facts") or [[about.get(name) for name in ("prompt", "subject", "new")]]
    if not all(isinstance(row, list) and len(row) == 3 and all(isinstance(x, str) for x in row) for row in rows):
        raise PrismaError("expected an edit of facts of a language model; found another edit")
    return [(prompt, subject, new) for prompt, subject, new in rows]


def measure_rewrite(
    model: nn.Module | Anatomy, tokenizer: Any, edit: WeightEdit, texts: Sequence[str] = ()
) -> RewriteMeasures:
    """Does an edit do what it is for, and how much does it change other texts? The model itself stays as it is.

    Args:
        texts: what should stay. Those from which the covariance was computed are what the edit was made to keep.

    Raises:
        PrismaError: an edit of something else than facts, or of another model.
    """
    parts, facts = anatomy(model), facts_of_edit(edit.about)
    prompts, answers = [filled(prompt, subject) for prompt, subject, _ in facts], [new for *_, new in facts]

    def measured() -> tuple[Tensor, Tensor, Tensor]:
        return (*answer_likelihoods(parts, tokenizer, prompts, answers), text_losses(parts, tokenizer, texts))

    with evaluating(parts.model):
        before = measured()
        with edit.apply(parts.model):
            after = measured()
    likelihood, said, loss = (torch.stack(pair, 1).tolist() for pair in zip(before, after, strict=True))
    rows = zip(facts, likelihood, said, strict=True)
    return RewriteMeasures(
        tuple(Answer(*fact, (p[0], p[1]), (s[0], s[1])) for fact, p, s in rows),
        _texts(before[2], after[2]) if loss else None,
    )


def _texts(before: Tensor, after: Tensor) -> TextLoss:
    low, high = mean_interval(after - before).tolist()
    return TextLoss(len(before), (float(before.mean()), float(after.mean())), (low, high))


@torch.no_grad()
def text_losses(parts: Anatomy, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """[text]: the mean negative log-likelihood of the tokens after the first, in nats.

    Texts of one token are left out.
    """
    rows = [torch.tensor(token_ids(tokenizer, text)) for text in texts]
    rows, found = sorted((row for row in rows if len(row) > 1), key=len), []
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        batch = Batch.of(some, parts.device)
        logs = batch.logits(parts.model)[:, :-1].double().log_softmax(-1)
        of_next = -logs.gather(-1, batch.ids[:, 1:, None])[..., 0] * batch.mask[:, 1:].to(logs)
        found.append(of_next.sum(1).cpu() / torch.tensor([len(row) - 1 for row in some]))
    return torch.cat(found) if found else torch.empty(0, dtype=torch.float64)


def write_rewritten(
    folder: Path | str, model: nn.Module, tokenizer: Any, edit: WeightEdit, measures: RewriteMeasures
) -> None:
    """Write the folder of an edited language model, whole or not at all; the model itself is afterwards as it was.

    Raises:
        PrismaError: the folder has entries, the edit is for another model, or nothing can be written.
    """
    with new_folder(given(folder)) as partial, edit.apply(model):
        model.save_pretrained(partial)  # type: ignore[operator]
        tokenizer.save_pretrained(partial)
        edit.write(partial / EDIT)
        write_json(partial / MEASURES, measures.to_dict())


def read_rewrite(folder: Path | str) -> tuple[WeightEdit, dict[str, Any]]:
    """(the edit, its measures) of such a folder, without the model.

    Raises:
        PrismaError: a file is absent or foreign, the edit is not one of facts, or the measures are of other facts.
    """
    folder = given(folder)
    edit, measures = WeightEdit.read(folder / EDIT), read_json(folder / MEASURES)
    rows = measures.get("facts")
    rows = rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else []
    if [tuple(row.get(name) for name in ("prompt", "subject", "new")) for row in rows] != facts_of_edit(edit.about):
        raise PrismaError(f"expected measures of the facts of the edit in {folder / MEASURES}; found others")
    return edit, measures
