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
from prisma.fields import from_dict
from prisma.files import read_json, write_atomic
from prisma.sites import canonical
from prisma.sparse.coders import BATCHED, Coder, CoderConfig, expect_whole

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.0.0"
"""Of SAELens: below 6 it drops `metadata`."""
TRANSCODERS = {"standard": "transcoder", "jumprelu": "jumprelu_transcoder"}
"""Kind -> what SAELens calls a transcoder of it, without `skip_`; it has no others."""
OURS = "prisma"


def write_coder(folder: Path, coder: Coder) -> None:
    """Write a coder's two files, the weights first, each whole or not at all.

    Raises:
        PrismaError: weights that are not finite, or files that cannot be written.
    """
    expect_whole(coder)
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


def read_coder(folder: Path) -> Coder:
    """The coder of a folder in the format of SAELens.

    Raises:
        PrismaError: a file is missing, a setting is unknown, or tensors do not fit.
    """
    cfg, (tensors, _) = read_json(folder / CFG), read_tensors(folder / WEIGHTS)
    metadata = cfg.get("metadata") if isinstance(cfg.get("metadata"), dict) else {}
    own = (metadata or {}).get(OURS)
    if isinstance(own, dict) and isinstance(own.get("config"), dict):
        config = from_dict(CoderConfig, own["config"], folder / CFG)
        return filled(config, tensors, folder, {name: x for name, x in own.items() if name != "config"})
    return _foreign(cfg, metadata or {}, tensors, folder)


def _foreign(cfg: Mapping[str, Any], metadata: Mapping[str, Any], tensors: dict[str, Tensor], folder: Path) -> Coder:
    """A coder that SAELens trained, of any version."""
    architecture = str(cfg.get("architecture", "standard"))
    kind = architecture.replace("skip_", "").replace("_transcoder", "").replace("transcoder", "standard")
    settings = cfg.get("activation_fn_kwargs") or {}
    named = cfg.get("activation_fn_str", cfg.get("activation_fn", "relu"))
    if architecture == "standard" and named != "relu":
        kind = str(named)  # before version 6, a topk coder was a standard one with this word
    k = cfg.get("k", settings.get("k"))
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
    site = metadata.get("hook_name") or cfg.get("hook_name") or cfg.get("hook_point") or ""
    target = (
        (metadata.get("hook_name_out") or cfg.get("hook_name_out") or "output")
        if "transcoder" in architecture
        else None
    )
    if kind in ("topk", "abstopk") and cfg.get("rescale_acts_by_decoder_norm"):
        tensors = with_unit_decoder(tensors)
    w = tensors.get("W_enc")
    d, m = w.shape if w is not None and w.ndim == 2 else (cfg.get("d_in", 0), cfg.get("d_sae", 0))
    centred = bool(cfg.get("apply_b_dec_to_input", True)) and target is None
    config = CoderConfig(
        kind, d, m, k, (canonical(str(site)),), (), target, cfg.get("d_out") if target else None,
        "W_skip" in tensors, centred,
    )  # fmt: skip
    return filled(
        config,
        tensors,
        folder,
        {"source": "saelens", "model_name": metadata.get("model_name", cfg.get("model_name", ""))},
    )


REPRODUCED = (None, "none", False)
"""Settings of how activations are prepared that a coder of raw activations reproduces."""


def with_unit_decoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same coder with directions of length 1, whose selection was by pre-activations times these lengths."""
    lengths = tensors["W_dec"].norm(dim=-1)
    changed = {"W_enc": tensors["W_enc"] * lengths, "b_enc": tensors["b_enc"] * lengths}
    return {**tensors, **changed, "W_dec": tensors["W_dec"] / lengths[:, None]}


@torch.no_grad()
def filled(config: CoderConfig, tensors: Mapping[str, Tensor], source: Path, metadata: Mapping[str, Any]) -> Coder:
    """A coder with these weights, each in memory of its own.

    Raises:
        PrismaError: a tensor is missing, unknown, of another shape, or not finite.
    """
    coder = Coder(config, metadata)
    wanted = coder.state_dict()
    wrong = [f"{name} is missing" for name in wanted if name not in tensors]
    wrong += [f"{name} is unknown" for name in tensors if name not in wanted]
    wrong += [
        f"{name} is {list(tensors[name].shape)} instead of {list(x.shape)}"
        for name, x in wanted.items()
        if name in tensors and tensors[name].shape != x.shape
    ]
    if wrong:
        raise PrismaError(
            f"expected the weights of a {config.kind} coder in {source}; found that {'; '.join(wrong[:5])}"
        )
    coder.load_state_dict({name: tensors[name].float().clone() for name in wanted})
    return expect_whole(coder.requires_grad_(False).eval())
