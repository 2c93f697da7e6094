"""`prisma.sparse.evaluate`: a coder beside its baselines, in rows with the names of `metrics`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.config import ViTConfig
from prisma.errors import PrismaError, quoted, warn
from prisma.fields import conform
from prisma.runs import Model, expect_inputs, expect_model
from prisma.sparse.activations import FILL_BYTES, Run, Source, split_images, token_places
from prisma.sparse.baselines import baselines
from prisma.sparse.behaviour import behaviour, without_coder
from prisma.sparse.belonging import expect_trained_on
from prisma.sparse.coders import BATCHED, Coder, at_site
from prisma.sparse.ground_truth import factor_recovery
from prisma.sparse.ground_truth import pooled as pooled_latents
from prisma.sparse.inputs import read_by, source_for, tokens_of, written_by
from prisma.sparse.metrics import Sums, legacy_explained_variance, structure
from prisma.sparse.probing import k_sparse_accuracy
from prisma.sparse.splicing import expect_written
from prisma.sparse.targeted import targeted_perturbation

Row = dict[str, Any]
PROBED = (1, 5)
"""How many latents a probe has."""
ABLATED = 5
"""How many latents of a class TPP ablates."""
CLASSES = 10
"""So many classes, those with the most images, TPP has probes of: each is a regression on all numbers of a token."""
FAR = 1.5
"""So many times more or fewer active latents, or more error, than a coder claims: it was read wrongly, or is of
another site."""
IMAGES = 32  # whose activations are in memory together


@torch.inference_mode(False)
@torch.no_grad()
def evaluate(
    coder: Coder,
    model: Model | Mapping[str, Model],
    images: Tensor,
    *,
    labels: Tensor | None = None,
    factors: Tensor | None = None,
    tokens: str | Sequence[str] | None = None,
    site: str | None = None,
    baseline_steps: int = 300,
    legacy: bool = False,
    other_model: bool = False,
    seed: int = 0,
) -> list[Row]:
    """How good is a coder, and is that better than what no training gives?

    Half of the images fit the baselines and probes; every number is of the other half. A row for each coder and kind of
    token: `fvu`, `l0`, `dead` and so on are defined in `prisma.sparse.metrics`. Rows of all tokens also have
    `l0_trained` (active latents with the rule of training, of batchtopk), the cosines of `structure`, what is left of
    the model's `behaviour` with its raw numbers, with labels the accuracy of probes of 1 and 5 latents and `tpp` (its
    warning: `targeted`), and with factors `mcc` and `uniqueness`. Look at `mcc` and at baselines before `fvu`.

    Args:
        images: normalised, [n, channel, height, width].
        labels: [n], the class of each image.
        factors: [value, n], known values of each image (`ground_truth.indicators`).
        tokens: which tokens; None: those with which the coder was trained, else all.
        site: where the coder reads, if its file names it otherwise or not at all.
        baseline_steps: updates with which the random baselines are trained; 0 leaves all baselines out.
        legacy: add `legacy_ev`, the explained variance that several papers print, to compare with them.
        other_model: take a model with other weights than the coder was trained on.
        seed: of the halves and of the baselines.

    Raises:
        PrismaError: a coder of another model or width, too few images, tokens that are all equal.
    """
    expect_trained_on(coder, model, other_model)
    coder = coder if site is None else at_site(coder, conform("site", site, str))
    _expect_data(model, images, labels, factors)
    wanted, c = tokens_of(coder, tokens), coder.config
    fit, test = split_images(len(images), 0.5, seed)
    source, fitted = (_Kept.of(source_for(coder, model, images[some], wanted)) for some in (test, fit))
    measured = {"coder": measure(coder, source, legacy=legacy)}
    _compare_with_claims(coder, measured["coder"][0])
    contenders = {"coder": coder}
    if baseline_steps:
        k = c.k or max(round(measured["coder"][0]["l0"]), 1)
        contenders |= baselines(coder, model, images[fit], fitted, k=k, tokens=wanted, steps=baseline_steps, seed=seed)
    measured |= {name: measure(one, source, legacy=legacy) for name, one in contenders.items() if name not in measured}
    numbers = [_known(one, fitted, source, labels, factors, fit, test) for one in contenders.values()]
    if not isinstance(model, Mapping) and len(c.sites) == 1 and _has_classes(model):
        at = None if wanted == "all" else token_places(model, c.sites[0], wanted)
        some = None if labels is None else labels[test]
        others = without_coder(model, images[test], c.target or coder.site, at=at)
        runs = [behaviour(one, model, images[test], some, at=at, others=others) for one in contenders.values()]
        numbers = [known | run for known, run in zip(numbers, runs, strict=True)]
    for (name, one), more in zip(contenders.items(), numbers, strict=True):
        measured[name][0] |= structure(one) | more
    return [{"coder": name, **row} for name, rows in measured.items() for row in rows]


def _expect_data(
    model: Model | Mapping[str, Model], images: Tensor, labels: Tensor | None, factors: Tensor | None
) -> None:
    """Raise PrismaError: images that no model takes, or labels or factors that are not those of these images."""
    models = list(model.values()) if isinstance(model, Mapping) else [model]
    for one in models:
        expect_model(one)
        expect_inputs(one, images)
    if len(images) < 2:
        raise PrismaError(
            f"expected at least 2 images, one half for the probes and baselines to learn from and the other to measure "
            f"on; found {len(images)}"
        )
    n, shape = len(images), lambda x: f"{list(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else quoted(x)
    if labels is not None:
        if not isinstance(labels, Tensor) or labels.shape != (n,) or labels.is_floating_point():
            raise PrismaError(f"expected labels [{n}], whole numbers, of the images; found {shape(labels)}")
        most = max((one.config.n_classes for one in models if _has_classes(one)), default=0)
        if int(labels.min()) < 0 or (most and int(labels.max()) >= most):
            known = f"from 0 to {most - 1}" if most else "of 0 or more"
            raise PrismaError(f"expected labels {known}; found {labels.min()} to {labels.max()}")
    if factors is not None:
        fits = isinstance(factors, Tensor) and factors.ndim == 2 and factors.shape[1] == n and len(factors)
        if not fits or not factors.isfinite().all():
            raise PrismaError(f"expected factors [value, {n}], finite numbers, of the images; found {shape(factors)}")


def measure(coder: Coder, source: Source, *, legacy: bool = False) -> list[Row]:
    """The numbers of `metrics` of all tokens of a source, then of each kind of token if there are several."""
    c = coder.config
    width = c.d_out or c.d
    roles = list(dict.fromkeys(source.roles))
    kinds = ["all", *(roles if len(roles) > 1 else [])]
    device = coder.W_enc.device
    sums = {kind: Sums(width, c.width, device=device) for kind in kinds}
    masks = {kind: torch.tensor([kind in ("all", role) for role in source.roles]) for kind in kinds}
    trained, parts = 0, list[tuple[Tensor, Tensor]]()
    for start in range(0, len(source), IMAGES):
        acts = source.read(range(start, min(start + IMAGES, len(source))))
        x, y = read_by(coder, acts), expect_written(coder, written_by(coder, acts))
        z = coder.encode(x)
        guess = coder.decode(z) + coder.skipped(x)
        for kind, mask in masks.items():
            sums[kind].add(y[:, mask], guess[:, mask], z[:, mask])
        if c.kind in BATCHED and c.k:
            trained += int((coder.encode(x.flatten(0, 1), as_trained=True) != 0).sum())
        if legacy:
            parts.append((y.flatten(0, 1), guess.flatten(0, 1)))
    rows: list[Row] = []
    for kind in kinds:
        try:
            rows.append({"tokens": kind, **sums[kind].row()})
        except PrismaError:  # a kind of which all tokens are equal, such as class tokens before the first block
            if kind == "all":
                raise
    rows[0]["l0_trained"] = trained / sums["all"].n if c.kind in BATCHED and c.k else rows[0]["l0"]
    if legacy:
        every, guesses = (torch.cat(both) for both in zip(*parts, strict=True))
        rows[0]["legacy_ev"] = legacy_explained_variance(every, guesses)
    return rows


def _compare_with_claims(coder: Coder, row: Row) -> None:
    """Warn where numbers show that a coder is of another site, or was read as another kind than it is."""
    told = coder.told
    claimed, claimed_fvu = told.get("l0"), told.get("fvu_held_out", told.get("fvu"))
    if row["fvu"] > 1:
        warn(
            f"this coder reconstructs worse than the mean does (fvu {row['fvu']:.2f}): is it of {coder.site} of this "
            "model, with these tokens?"
        )
    elif claimed_fvu and row["fvu"] > FAR * claimed_fvu:
        warn(
            f"this coder claims an fvu of {claimed_fvu:.3f}; found {row['fvu']:.3f}: are these images like those that "
            "it was trained on?"
        )
    if claimed and not 1 / FAR < row["l0"] / claimed < FAR:
        warn(f"this coder claims {claimed:.1f} active latents per token; found {row['l0']:.1f}")


def _known(
    coder: Coder,
    fitted: Source,
    source: Source,
    labels: Tensor | None,
    factors: Tensor | None,
    fit: list[int],
    test: list[int],
) -> Row:
    """Probes of labels, and recovery of factors, by the most active token of each image."""
    if labels is None and factors is None:
        return {}
    row: Row = {}
    z = pooled_latents(coder, source)
    if labels is not None:
        on = pooled_latents(coder, fitted)
        for k in (k for k in PROBED if k <= coder.config.width):
            row[f"probe_{k}"] = k_sparse_accuracy(on, labels[fit].to(z.device), z, labels[test].to(z.device), k)
        row |= _targeted(coder, fitted, source, labels[fit].to(z.device), labels[test].to(z.device))
    if factors is not None:
        found = factor_recovery(z, factors[:, test])
        row |= {"mcc": found.mcc, "uniqueness": found.uniqueness}
    return row


def _targeted(coder: Coder, fitted: Source, source: Source, labels: Tensor, test_labels: Tensor) -> Row:
    """TPP of the largest classes that training and test images both have."""
    classes, counts = labels[torch.isin(labels, test_labels)].unique(return_counts=True)
    both = classes[counts.argsort(descending=True, stable=True)[:CLASSES]]
    if len(both) < 2:
        return {}
    parts: list[Tensor] = []
    for one, known in ((fitted, labels), (source, test_labels)):
        rows = torch.isin(known, both)
        parts += [x[rows] for x in (pooled_latents(coder, one, "mean"), _mean_written(coder, one), known)]
    z, x, own, test_z, test_x, test = parts
    found = targeted_perturbation(coder.W_dec, z, x, own, test_z, test_x, test, min(ABLATED, coder.config.width))
    return {"tpp": found.tpp, "tpp_intended": found.intended, "tpp_unintended": found.unintended}


def _mean_written(coder: Coder, source: Source) -> Tensor:
    """[image, d]: the mean over tokens of the activations where a coder writes."""
    found = []
    for start in range(0, len(source), IMAGES):
        acts = source.read(range(start, min(start + IMAGES, len(source))))
        found.append(written_by(coder, acts).double().mean(1))
    return torch.cat(found)


@dataclass(frozen=True)
class _Kept:
    """A source whose activations are in memory, so that all coders are measured on one run of the model."""

    source: Run
    acts: Mapping[str, Tensor]

    @classmethod
    def of(cls, source: Run) -> Source:
        """The same source, kept in memory if it fits."""
        size = len(source) * len(source.roles) * sum(source.widths.values()) * 4
        return cls(source, source.read(range(len(source)))) if size <= FILL_BYTES else source

    @property
    def widths(self) -> Mapping[str, int]:
        return self.source.widths

    @property
    def roles(self) -> tuple[str, ...]:
        return self.source.roles

    def __len__(self) -> int:
        return len(self.source)

    def read(self, images: Sequence[int]) -> dict[str, Tensor]:
        rows = torch.as_tensor(list(images))
        return {site: x[rows.to(x.device)] for site, x in self.acts.items()}


def _has_classes(model: Model) -> bool:
    return isinstance(model.config, ViTConfig) and model.config.n_classes > 0
