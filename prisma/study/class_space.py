"""The analyses of class space that can run over a data set; the catalog lists them among all others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from prisma.analysis.class_space.attention_perturbation import AttentionPerturbation, attention_perturbation
from prisma.analysis.class_space.class_identifiability import ClassIdentifiability, RankReader, class_identifiability
from prisma.analysis.class_space.class_projection import ClassProjection, class_projection
from prisma.analysis.class_space.class_similarity_change import (
    ChangeReader,
    ClassSimilarityChange,
    class_similarity_change,
)
from prisma.analysis.class_space.linear_probes import LinearProbes, train_probes
from prisma.analysis.class_space.memories import Memories, MemoryReader, memories
from prisma.analysis.class_space.ranks import expect_labels
from prisma.analysis.class_space.token_perturbation import TokenPerturbation, token_perturbation
from prisma.fields import parse
from prisma.study.entry import Analysis
from prisma.study.inputs import ShardInputs


def _class_identifiability(inputs: ShardInputs) -> ClassIdentifiability:
    return _with_ties(
        class_identifiability(
            inputs.model,
            inputs.images,
            inputs.labels,
            masks=inputs.object_masks_or_none,
            batch=inputs.batch,
            **inputs.select_options("norm", "bias", "control", "seed"),
        )
    )


def _with_ties(found: ClassIdentifiability) -> ClassIdentifiability:
    ties: dict[str, Any] = {}  # of a shard without any, which is merged with those that have some
    for name, rank in {"tied": found.rank, "control_tied": found.control_rank}.items():
        if rank is not None and getattr(found, name) is None:
            ties[name] = torch.ones_like(rank)
    return replace(found, **ties)


class _RankReader(RankReader):
    def result(self, control: RankReader | None = None) -> ClassIdentifiability:
        return _with_ties(super().result(control))


def _ranks(inputs: ShardInputs) -> RankReader | None:
    if inputs.options["control"]:  # of another model, which has a run of its own
        return None
    options, masks = inputs.select_options("norm", "bias"), inputs.object_masks_or_none
    return _RankReader(inputs.model, inputs.images, inputs.labels, masks=masks, **options)


def _changes(inputs: ShardInputs) -> ChangeReader:
    options, masks = inputs.select_options("norm", "bias"), inputs.object_masks_or_none
    return ChangeReader(inputs.model, inputs.images, inputs.labels, masks=masks, **options)


def _hits(inputs: ShardInputs) -> MemoryReader | None:
    if inputs.options["control"]:
        return None
    options = inputs.select_options("top", "ln", "compat") | {"layers": layers_of(inputs)}
    labels = expect_labels(inputs.model, inputs.images, inputs.labels)
    return MemoryReader(inputs.model, labels, site=inputs.options["layer"], **options)


def _class_similarity_change(inputs: ShardInputs) -> ClassSimilarityChange:
    options = inputs.select_options("norm", "bias")
    masks = inputs.object_masks_or_none
    return class_similarity_change(
        inputs.model, inputs.images, inputs.labels, masks=masks, batch=inputs.batch, **options
    )


def _attention_perturbation(inputs: ShardInputs) -> AttentionPerturbation:
    return attention_perturbation(
        inputs.model,
        inputs.images,
        inputs.labels,
        masks=inputs.object_masks_or_none,
        batch=inputs.batch,
        layers=layers_of(inputs),
        **inputs.select_options("kind", "renormalise", "with_class_token", "norm", "bias", "compat"),
    )


def _token_perturbation(inputs: ShardInputs) -> TokenPerturbation:
    return token_perturbation(
        inputs.model,
        inputs.images,
        inputs.labels,
        inputs.object_masks,
        batch=inputs.batch,
        **inputs.select_options("remove", "how", "with_class_token", "norm", "bias", "compat"),
    )


def _memories(inputs: ShardInputs) -> Memories:
    data = (inputs.images, inputs.labels) if len(inputs.rows) else (None, None)
    options = inputs.select_options("top", "ln", "control", "seed", "compat") | {"layers": layers_of(inputs)}
    return memories(inputs.model, *data, site=inputs.options["layer"], batch=inputs.batch, **options)


def layers_of(inputs: ShardInputs) -> tuple[int, ...] | None:
    given = inputs.options["layers"]
    found: tuple[int, ...] | None = None if given is None else parse("layers", given, tuple[int, ...])
    return found


def _linear_probes(inputs: ShardInputs) -> LinearProbes:
    labels, options = inputs.labels, inputs.select_options("site", "alpha")
    probes = inputs.once(
        "probes",
        lambda: train_probes(inputs.model, *inputs.training(inputs.options["training"]), batch=inputs.batch, **options),
    )
    return probes.read(inputs.model, inputs.images, labels, norm=inputs.options["norm"], batch=inputs.batch)


_PROJECTED = {"norm": "final", "bias": True}

CLASS_SPACE: Mapping[str, Analysis] = {
    "class_projection": Analysis(
        "What the residual stream, attention or the MLP says about each class: logits by layer and token.",
        {"site": "resid_post", "queries": "class", **_PROJECTED},
        ClassProjection,
        lambda inputs: class_projection(inputs.model, inputs.images, batch=inputs.batch, **inputs.options),
    ),
    "class_identifiability": Analysis(
        "From which tokens the image's class can be read, at each stage.",
        {**_PROJECTED, "control": False, "seed": 0},
        ClassIdentifiability,
        _class_identifiability,
        reader=_ranks,
    ),
    "class_similarity_change": Analysis(
        "Which blocks, attentions and MLPs raise the logit of the image's class, at each token.",
        _PROJECTED,
        ClassSimilarityChange,
        _class_similarity_change,
        reader=_changes,
    ),
    "attention_perturbation": Analysis(
        "Whether patches hold the class if they attend to themselves alone, or not to the class token.",
        {
            **{"kind": "self_only", "renormalise": False, "layers": None, "with_class_token": False},
            **_PROJECTED,
            "compat": None,
        },
        AttentionPerturbation,
        _attention_perturbation,
    ),
    "token_perturbation": Analysis(
        "Whether patches of the object, or of the context, hold the class without the others.",
        {"remove": "context", "how": "index", "with_class_token": False, **_PROJECTED, "compat": None},
        TokenPerturbation,
        _token_perturbation,
    ),
    "memories": Analysis(
        "Which classes the memories of each layer write, and whether the active ones fit the image's class.",
        {"layer": "mlp", "layers": None, "top": 5, "ln": "folded", "control": False, "seed": 0, "compat": None},
        Memories,
        _memories,
        of_weights=True,
        reader=_hits,
    ),
    "linear_probes": Analysis(
        "Whether the class is linearly present in each layer, and whether the model's own readout finds it there.",
        {"site": "resid_post", "alpha": 1.0, "norm": "final", "training": 2048},
        LinearProbes,
        _linear_probes,
    ),
}
"""Name -> analysis."""
