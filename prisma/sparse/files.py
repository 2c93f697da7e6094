"""Coders as files: the format of SAELens, `cfg.json` and `sae_weights.safetensors`, in which they are read and written.

What SAELens has no word for is in `metadata.prisma`, which SAELens keeps. It stores batchtopk and matryoshka coders as
jumprelu, which computes the same with their threshold; read by Prisma, they are again what they were. Coders of other
libraries are read by `load_coder` (`layouts`); no pickle is opened but for its tensors (`unpickling`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prisma.checkpoint import read_tensors, to_safetensors
from prisma.errors import PrismaError, quoted
from prisma.fields import conform, from_dict
from prisma.files import read_json, write_atomic
from prisma.filesystem import given
from prisma.sites import canonical
from prisma.sparse.coders import BATCHED, Coder, CoderConfig, expect_whole, unit
from prisma.sparse.foreign import OUTPUT, Said, matrix

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.0.0"
"""Of SAELens: below 6 it drops `metadata`."""
TRANSCODERS = {"standard": "transcoder", "jumprelu": "jumprelu_transcoder"}
"""Kind -> what SAELens calls a transcoder of it, without `skip_`; it has no others."""
OURS = "prisma"


def write_coder(folder: str | Path, coder: Coder) -> None:
    """Write a coder's two files, the weights first, each whole or not at all.

    Raises:
        PrismaError: weights that are not finite, or files that cannot be written.
    """
    expect_whole(coder)
    folder = given(folder)
    tensors = {name: x.detach().float() for name, x in coder.state_dict().items()}
    write_atomic(folder / WEIGHTS, to_safetensors(tensors, {}))
    write_atomic(folder / CFG, (json.dumps(cfg_of(coder), indent=2, allow_nan=False) + "\n").encode())


def architecture_of(config: CoderConfig) -> str:
    """What SAELens calls this coder; a name of our own, starting with `prisma_`, for what it cannot read."""
    kind = "jumprelu" if config.kind in BATCHED else config.kind
    if len(config.sites) > 1:
        return f"prisma_{kind}_crosscoder"
    if config.target is None:
        return kind if kind != "groupmax" else "prisma_groupmax"
    if kind not in TRANSCODERS:
        return f"prisma_{kind}_transcoder"
    return TRANSCODERS[kind].replace("transcoder", "skip_transcoder" if config.skip else "transcoder")


def cfg_of(coder: Coder) -> dict[str, Any]:
    """The content of `cfg.json`."""
    config = coder.config
    own = {"config": asdict(config), **coder.metadata}
    cfg: dict[str, Any] = {
        "architecture": architecture_of(config), "d_in": config.d, "d_sae": config.width, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": config.centred, "normalize_activations": "none",
        "reshape_activations": "none",
    }  # fmt: skip
    if config.target is not None:
        cfg["d_out"] = config.d_out
    if config.kind in ("topk", "abstopk"):
        cfg |= {"k": config.k, "rescale_acts_by_decoder_norm": False}
    names = {
        "model_name": coder.metadata.get("model_name", ""),
        "hook_name": coder.site,
        "hook_name_out": config.target,
    }
    return cfg | {"metadata": {"sae_lens_version": VERSION, **names, OURS: own}}


def read_coder(folder: str | Path) -> Coder:
    """The coder of a folder in the format of SAELens.

    Raises:
        PrismaError: a file is missing, a setting is unknown, or tensors do not fit.
    """
    folder = given(folder)
    cfg, (tensors, _) = read_json(folder / CFG), read_tensors(folder / WEIGHTS)
    metadata = Said(cfg, folder / CFG).inside("metadata").values
    own = metadata.get(OURS)
    if own is not None:
        if not isinstance(own, dict):
            raise PrismaError(f"expected what Prisma says of a coder in {folder / CFG}; found {quoted(own)}")
        config = from_dict(CoderConfig, own.get("config"), folder / CFG)
        _expect_training(own.get("training", {}), folder / CFG)
        return filled(config, tensors, folder, {name: x for name, x in own.items() if name != "config"})
    return _foreign(cfg, metadata, tensors, folder)


TOLD: Mapping[str, Any] = {
    "tokens": str | tuple[str, ...],
    "bfloat16": bool,
    **dict.fromkeys(("steps", "step", "batch", "images", "dead_after", "seed", "order_seed", "memory"), int),
    **dict.fromkeys(("fvu", "fvu_held_out", "l0", "l0_held_out", "dead", "gamma", "lr", "held_out"), float),
}
"""What a coder says of its training, and its type; what else it says, nothing reads."""


def _expect_training(told: Any, source: Path) -> None:
    """Raise PrismaError: something that is read later is of another type."""
    if not isinstance(told, dict):
        raise PrismaError(f"expected what a coder says of its training in {source}; found {quoted(told)}")
    for name, kind in TOLD.items():
        if name in told:
            conform(f"{name} of the training in {source}", told[name], kind)
    weights = told.get("model_sha256", {})
    if not isinstance(weights, dict) or not all(isinstance(x, str) for x in weights.values()):
        raise PrismaError(f"expected the hash of each model by its name in {source}; found {quoted(weights)}")


def _foreign(cfg: Mapping[str, Any], metadata: Mapping[str, Any], tensors: dict[str, Tensor], folder: Path) -> Coder:
    """A coder that SAELens trained, of any version."""
    said, more = Said(cfg, folder / CFG), Said(metadata, folder / CFG)
    architecture = said.get("architecture", str, "standard")
    kind = architecture.replace("skip_", "").replace("_transcoder", "").replace("transcoder", "standard")
    named = said.get("activation_fn_str", str, said.get("activation_fn", str, "relu"))
    if architecture == "standard" and named != "relu":
        kind = named  # before version 6, a topk coder was a standard one with this word
    k = said.get("k", int | None, said.inside("activation_fn_kwargs").get("k", int | None))
    if kind == "standard" and k is not None:
        raise PrismaError(
            f"expected a kind of coder that keeps k latents, such as topk, in {folder}; found k={quoted(k)} with the "
            f"activation {quoted(named)}"
        )
    wrong = [
        f"{name}={quoted(cfg[name])}"
        for name in ("normalize_activations", "reshape_activations")
        if cfg.get(name) not in REPRODUCED
    ]
    if wrong or "scaling_factor" in tensors:
        raise PrismaError(
            f"expected a coder of raw activations in {folder}; found {(wrong or ['a scaling_factor'])[0]}"
        )
    sites = [one.get(name, str | None) for name in ("hook_name", "hook_point") for one in (more, said)]
    targets = [one.get("hook_name_out", str | None) for one in (more, said)]
    target = next(filter(None, targets), OUTPUT) if "transcoder" in architecture else None
    centred = said.get("apply_b_dec_to_input", bool, target is None)
    if centred and target is not None:
        raise PrismaError(
            f"expected apply_b_dec_to_input=false of a transcoder in {folder / CFG}, whose b_dec is of another site; "
            "found true"
        )
    if said.get("rescale_acts_by_decoder_norm", bool | None) and kind in ("topk", "abstopk"):
        tensors = with_unit_decoder(tensors)
    d, m = matrix(tensors, "W_enc", folder).shape
    said.expect_sizes({"d_in": d, "d_sae": m})
    config = CoderConfig(
        kind, d, m, k, (canonical(next(filter(None, sites), "")),), (), target,
        said.get("d_out", int | None) if target else None, "W_skip" in tensors, centred,
    )  # fmt: skip
    model = more.get("model_name", str | None, said.get("model_name", str | None))
    return filled(config, tensors, folder, {"source": "saelens", "model_name": model or ""})


REPRODUCED = (None, "none", False)
"""Settings of how activations are prepared that a coder of raw activations reproduces."""


def with_unit_decoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same coder with directions of length 1, whose selection was by pre-activations times these lengths."""
    lengths = tensors["W_dec"].norm(dim=-1)
    changed = {"W_enc": tensors["W_enc"] * lengths, "b_enc": tensors["b_enc"] * lengths}
    return {**tensors, **changed, "W_dec": unit(tensors["W_dec"])}


@torch.no_grad()
def filled(config: CoderConfig, tensors: Mapping[str, Tensor], source: Path, metadata: Mapping[str, Any]) -> Coder:
    """A coder with these weights, each in memory of its own.

    Raises:
        PrismaError: a tensor is missing, unknown, of another shape, of whole or complex numbers, or not finite.
    """
    with torch.device("meta"):  # before shapes are compared, a size is only what a file says
        coder = Coder(config, metadata)
    wanted = coder.state_dict()
    wrong = [f"{name} is missing" for name in wanted if name not in tensors]
    wrong += [f"{name} is unknown" for name in tensors if name not in wanted]
    wrong += [
        f"{name} is {list(tensors[name].shape)} instead of {list(x.shape)}"
        for name, x in wanted.items()
        if name in tensors and tensors[name].shape != x.shape
    ]
    wrong += [f"{name} is {x.dtype}, not floating point" for name, x in tensors.items() if not x.is_floating_point()]
    if wrong:
        raise PrismaError(
            f"expected the weights of a {config.kind} coder in {source}; found that {'; '.join(wrong[:5])}"
        )
    own = {name: tensors[name].float().clone(memory_format=torch.contiguous_format) for name in wanted}
    coder.load_state_dict(own, assign=True)
    return expect_whole(coder.requires_grad_(False).eval())
