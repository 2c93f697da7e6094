"""What is left of a model's behaviour when an activation is replaced by a coder's reconstruction.

Four runs on the same images: as it is (clean), with the reconstruction (spliced), and with zeros or the mean vector in
its place. The raw numbers are always given, because a score alone misleads: late in the residual stream zeros destroy
everything, so any coder gets 99 %; and above 1 a coder removes noise. A score is None where zeros change nothing.

    ce_score = (ce_zero - ce_spliced) / (ce_zero - ce_clean)          kl_score = 1 - kl_spliced / kl_zero

The logits of a CLIP's zero-shot classes have its logit scale in them (`loaded.zero_shot`), as they must here.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.batching import inputs_per_pass
from prisma.edits import Apply, Edit
from prisma.errors import PrismaError
from prisma.runs import Model, record, run
from prisma.sites import axes_of
from prisma.sparse.activations import bare, rows_of
from prisma.sparse.coders import Coder
from prisma.sparse.splicing import Splice

Row = dict[str, float | None]


@torch.no_grad()
def behaviour(
    coder: Coder,
    model: Model,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    at: list[int] | None = None,
    batch: int | None = None,
    others: Mapping[str, Tensor] | None = None,
) -> Row:
    """Cross-entropy, KL divergence and agreement of the spliced model with the model, beside zero and mean ablation.

    Args:
        coder: of one site of this model.
        labels: [n], the classes of the images; without, there is no cross-entropy.
        at: the tokens where the activation is replaced; None: all.
        batch: images that run together.
        others: the runs without the coder, from `without_coder`, where several coders are measured.

    Returns:
        `agreement` (share of images with the same answer), `kl_spliced`, `kl_zero`, `kl_mean`, `kl_score`, and with
        labels `ce_clean`, `ce_spliced`, `ce_zero`, `ce_mean`, `ce_score`, `accuracy_clean` and `accuracy_spliced`.

    Raises:
        PrismaError: the model has no classes, or the coder reads several sites.
    """
    _expect_classes(model)
    site, reads_at = bare(coder.config.target or coder.site), bare(coder.site)
    found = dict(others if others is not None else without_coder(model, images, site, at=at, batch=batch))
    spliced = []
    for x in images.split(inputs_per_pass(model, batch)):
        reads = _rows(model, x, reads_at) if coder.config.target else None
        # whether the coder is of this model is asked once, by who calls
        spliced.append(run(model, x, {site: _at(Splice(coder, error=False, reads=reads, other_model=True), site, at)}))
    found["spliced"] = torch.cat(spliced)
    return scores({name: logits.double() for name, logits in found.items()}, labels)


@torch.no_grad()
def without_coder(
    model: Model, images: Tensor, site: str, *, at: list[int] | None = None, batch: int | None = None
) -> dict[str, Tensor]:
    """Logits [n, class] of the runs to compare with: `clean`, and with `zero` or the `mean` vector at the site.

    Raises:
        PrismaError: the model has no classes.
    """
    _expect_classes(model)
    size, site = inputs_per_pass(model, batch), bare(site)
    read = slice(None) if at is None else at
    sums = [_rows(model, x, site)[:, read].double().sum((0, 1)) for x in images.split(size)]
    tokens = len(at) if at is not None else _rows(model, images[:1], site).shape[1]
    mean = torch.stack(sums).sum(0) / (len(images) * tokens)

    def of_mean(v: Tensor) -> Tensor:
        return mean.to(v).view(v.shape[2:] if v.ndim > 2 else v.shape[1:]).expand_as(v).clone()

    found: dict[str, list[Tensor]] = {"clean": [], "zero": [], "mean": []}
    for x in images.split(size):
        found["clean"].append(run(model, x))
        for name, value in (("zero", torch.zeros_like), ("mean", of_mean)):
            found[name].append(run(model, x, {site: _at(Apply(value), site, at)}))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _at(edit: Edit, site: str, tokens: list[int] | None) -> Edit:
    return edit if tokens is None else edit.at(**{axes_of(site)[1]: tokens})


def _expect_classes(model: Model) -> None:
    if not getattr(model.config, "n_classes", 0):
        raise PrismaError("expected a model with classes to measure its behaviour; found n_classes=0")


def _rows(model: Model, images: Tensor, site: str) -> Tensor:
    return rows_of(record(model, images, bare(site), stop=True)[1][bare(site)], bare(site))


def scores(logits: dict[str, Tensor], labels: Tensor | None) -> Row:
    """The numbers of `behaviour`, of logits [n, class] of the four runs."""
    logs = {name: x.log_softmax(-1) for name, x in logits.items()}
    clean, row = logs["clean"], dict[str, float]()
    p = clean.exp()  # zero of a class whose logit is minus infinity
    row["agreement"] = (logits["spliced"].argmax(-1) == logits["clean"].argmax(-1)).double().mean().item()
    for name in ("spliced", "zero", "mean"):
        row[f"kl_{name}"] = torch.where(p > 0, p * (clean - logs[name]), 0.0).sum(-1).mean().item()
    found: Row = {"kl_score": 1 - row["kl_spliced"] / row["kl_zero"] if row["kl_zero"] else None}
    if labels is not None:
        wanted = labels.to(clean.device)
        for name, x in logs.items():
            row[f"ce_{name}"] = F.nll_loss(x, wanted).item()
        span = row["ce_zero"] - row["ce_clean"]
        found["ce_score"] = (row["ce_zero"] - row["ce_spliced"]) / span if span else None
        for name in ("clean", "spliced"):
            row[f"accuracy_{name}"] = (logits[name].argmax(-1) == wanted).double().mean().item()
    return row | found
