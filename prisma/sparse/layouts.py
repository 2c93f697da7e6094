"""Coders in the files of other libraries. Each reader takes a folder, and returns a coder of raw activations.

| library | files | orientation of W_enc | input minus b_dec |
|---|---|---|---|
| sparsify | cfg.json, sae.safetensors | (m, d) | unless `transcode` |
| ViT-Prisma | config.json, weights.pt or n_images_*.pt | (d, m) | always, of transcoders too |
| saev | sae.pt, whose first line is JSON | (d, m) | never |
| dictionary_learning | ae.pt, config.json | (m, d), of some (d, m) | of topk, batchtopk, matryoshka and relu |
| overcomplete, visaebench | model.safetensors or sae.pt, config.json | (m, d) | never |
| circuit-tracer | config.yaml, layer_0.safetensors, ... | (m, d) | never |
| crosscoders of Kissane and Nanda | cfg.json, cc_weights.pt | (n, d, m) | never |
| crosscoders of science-of-finetuning | config.json, model.safetensors | (n, d, m) | never |
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prisma.checkpoint import names_in, read_tensors
from prisma.errors import PrismaError, quoted
from prisma.files import read_json
from prisma.reading import open_file, parse_json, read_text
from prisma.sites import canonical
from prisma.sparse.coders import Coder, CoderConfig
from prisma.sparse.files import CFG, filled
from prisma.sparse.foreign import OUTPUT, Said, expect_only, known_kind, matrix, threshold_of
from prisma.sparse.unpickling import read_saved, tensors_of


def sparsify(folder: Path) -> Coder:
    """A coder of sparsify: `num_latents` 0 means width times `expansion_factor`; the tensor itself has the number."""
    said, (tensors, _) = Said(read_json(folder / CFG), folder / CFG), read_tensors(folder / "sae.safetensors")
    kind = said.get("activation", str, "topk")
    if kind not in ("topk", "groupmax"):
        raise PrismaError(f"expected the activation topk or groupmax in {folder / CFG}; found {quoted(kind)}")
    m, d = matrix(tensors, "encoder.weight", folder).shape
    said.expect_sizes({"d_in": d, "num_latents": m} if said.get("num_latents", int, 0) else {"d_in": d})
    transcode = said.get("transcode", bool, False)
    config = CoderConfig(
        kind, d, m, said.get("k", int), (folder.resolve().name,), (), OUTPUT if transcode else None,
        matrix(tensors, "W_dec", folder).shape[1] if transcode else None, "W_skip" in tensors, not transcode,
    )  # fmt: skip
    named = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}
    weights = {named.get(name, name): x for name, x in tensors.items()}
    return filled(config, {**weights, "W_enc": weights["W_enc"].T}, folder, {"source": "sparsify"})


def vit_prisma(path: Path) -> Coder:
    """A coder of ViT-Prisma: a file, or that of a folder which saw the most images.

    Its settings may be a pickled object, of which the fields are read and nothing is run.
    """
    folder = path if path.is_dir() else path.parent
    saved = read_saved(path if path.is_file() else max(folder.glob("*.pt"), key=_images_seen))
    own: Mapping[str, Any] = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    inside: Any = next((saved[name] for name in ("cfg", "config") if isinstance(saved, Mapping) and name in saved), {})
    cfg = {**(inside if isinstance(inside, Mapping) else getattr(inside, "__dict__", {})), **own}
    said, tensors = Said(cfg, folder), tensors_of(saved)
    if not (scale := tensors.pop("scaling_factor", torch.ones(()))).eq(1).all():
        raise PrismaError(f"expected a coder whose scaling_factor is 1 in {folder}; found {scale.flatten()[0].item()}")
    if (norm := cfg.get("normalize_activations", "layer_norm")) not in (None, "none", False):
        raise PrismaError(
            f"expected a coder of raw activations in {folder}; found normalize_activations={quoted(norm)}, which is "
            "computed for each token and cannot be part of its weights"
        )
    kind = "gated" if "b_gate" in tensors else known_kind(said.get("activation_fn_str", str, "relu"), folder)
    k = said.inside("activation_fn_kwargs").get("k", int | None) if kind == "topk" else None
    layer = cfg.get("hook_point_layer")
    layer = layer[0] if isinstance(layer, list) and len(layer) == 1 else layer
    site = (
        f"blocks.{layer}.{said.get('layer_subtype', str, 'hook_resid_post')}"
        if type(layer) is int and layer >= 0
        else ""
    )
    d, m = matrix(tensors, "W_enc", folder).shape
    said.expect_sizes({"d_in": d})
    target = OUTPUT if said.get("is_transcoder", bool | None) or "b_dec_out" in tensors else None
    if target is not None:  # it subtracts b_dec from its input: part of b_enc from here on
        tensors["b_enc"] = tensors["b_enc"] - tensors["b_dec"] @ tensors["W_enc"]
        tensors["b_dec"] = tensors.pop("b_dec_out")
    if kind == "gated":
        tensors.pop("b_enc", None)
    d_out = tensors["b_dec"].shape[0] if target else None
    config = CoderConfig(kind, d, m, k, (canonical(site),), (), target, d_out, "W_skip" in tensors, target is None)
    return filled(config, tensors, folder, {"source": "vit_prisma", "model_name": said.get("model_name", str, "")})


def _images_seen(file: Path) -> tuple[bool, int]:
    """For the order of files of one training: `weights.pt` last, and the others by the number in their name."""
    number = file.stem.rpartition("_")[2]
    return file.name == "weights.pt", int(number) if number.isdecimal() else -1


def saev(path: Path) -> Coder:
    """A coder of saev: a line of JSON, then saved tensors."""
    with open_file(path, "a coder of saev") as file:
        line = file.readline(2**20)
    header = parse_json(line.decode("utf-8", "replace"), f"the first line of {path}")
    tensors = tensors_of(read_saved(path, skip=len(line)))
    theta = tensors.pop("activation.threshold", None)
    name, k = _saev_activation(Said(header, path))
    if name is None and k is None:
        raise PrismaError(f"expected the activation in the first line of {path}; found none")
    kind = known_kind(name or "topk", path)
    kind = "batchtopk" if kind == "topk" and theta is not None else kind
    if kind == "batchtopk" and theta is None:
        raise PrismaError(f"expected the threshold of a batchtopk coder in {path}; found none")
    d, m = matrix(tensors, "W_enc", path).shape
    if theta is not None:
        tensors["threshold"] = threshold_of(theta, m, path, batched=kind == "batchtopk")
    config = CoderConfig(kind, d, m, k, ("",), centred=False)
    return filled(config, tensors, path, {"source": "saev"})


def _saev_activation(header: Said) -> tuple[str | None, int | None]:
    """(the class of the activation, k). It is named in the settings, in newer headers with parameters of its own."""
    cfg = header.inside("cfg") if "cfg" in header.values else header
    given = cfg.values.get("activation", header.values.get("activation"))
    if isinstance(given, str):
        given = {"cls": given}
    if given is None:  # of the first schemas
        first = "Relu" if "d_vit" in cfg.values else None
        given = {"cls": header.values.get("cls", cfg.values.get("cls", first)), "params": cfg.values}
    said = Said(given, header.source)
    parameters = said.inside("params") if "params" in said.values else said
    name = said.get("cls", str | None) if given else "Relu"  # whose settings were an empty object before it had a name
    k = parameters.get("top_k", int | None, parameters.get("k", int | None))
    return (None if name is None else name.rpartition(".")[2]), k


DICTIONARIES: Mapping[str, str] = {
    "AutoEncoder": "standard", "AutoEncoderNew": "standard", "GatedAutoEncoder": "gated",
    "JumpReluAutoEncoder": "jumprelu", "AutoEncoderTopK": "topk", "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
}  # fmt: skip
"""Class of dictionary_learning -> our kind."""
UNCENTRED = ("JumpReluAutoEncoder", "AutoEncoderNew")


def dictionary_learning(folder: Path) -> Coder:
    """A coder of dictionary_learning; its class decides what it computes, which tensors it has and what is centred."""
    there = (folder / "config.json").is_file()
    said = Said(read_json(folder / "config.json") if there else {}, folder / "config.json").inside("trainer")
    tensors = tensors_of(read_saved(folder / "ae.pt"))
    name = said.get("dict_class", str | None) or _dictionary_class(tensors, folder)
    if (kind := DICTIONARIES.get(name)) is None:
        raise PrismaError(f"expected a dict_class of {', '.join(DICTIONARIES)} in {folder}; found {quoted(name)}")
    k, theta = tensors.pop("k", None), tensors.pop("threshold", None)
    sizes = tensors.pop("group_sizes", None)
    if "encoder.weight" in tensors:
        tensors |= {"W_enc": tensors.pop("encoder.weight").T, "W_dec": tensors.pop("decoder.weight").T}
    named = {"encoder.bias": "b_enc", "bias": "b_dec", "decoder_bias": "b_dec", "gate_bias": "b_gate",
             "mag_bias": "b_mag", "decoder.bias": "b_dec"}  # fmt: skip
    tensors = {named.get(n, n): x for n, x in tensors.items()}
    d, m = matrix(tensors, "W_enc", folder).shape
    said.expect_sizes({"activation_dim": d, "dict_size": m})
    prefixes = tuple(torch.as_tensor(sizes).cumsum(0).tolist()) if sizes is not None else ()
    if kind in ("batchtopk", "matryoshka") and (theta is None or bool((theta < 0).all())):
        kind = "topk"  # -1: no threshold was set, so it keeps k
    elif kind != "topk" and theta is not None:  # which always keeps k, whatever its threshold
        tensors["threshold"] = threshold_of(theta, m, folder, batched=kind in ("batchtopk", "matryoshka"))
    config = CoderConfig(
        kind, d, m, None if k is None else _whole(k, folder), (said.get("submodule_name", str | None) or "",),
        centred=name not in UNCENTRED, prefixes=prefixes if kind == "matryoshka" else (),
    )  # fmt: skip
    model = said.get("lm_name", str | None) or ""
    return filled(config, tensors, folder, {"source": "dictionary_learning", "model_name": model})


def _whole(k: Tensor, folder: Path) -> int:
    """A whole number that is stored as a tensor."""
    if k.numel() != 1 or k.item() != k.round().item():
        raise PrismaError(f"expected k to be a whole number in {folder}; found {quoted(k.tolist())}")
    return int(k)


def _dictionary_class(tensors: Mapping[str, Tensor], folder: Path) -> str:
    """The class of a coder that came without its settings, where its tensors leave no doubt."""
    if "k" in tensors:
        raise PrismaError(f"expected config.json with the dict_class in {folder}: several classes have k; found none")
    if "r_mag" in tensors:
        return "GatedAutoEncoder"
    if "threshold" in tensors:
        return "JumpReluAutoEncoder"
    return "AutoEncoderNew" if "decoder.bias" in tensors else "AutoEncoder"


def overcomplete(folder: Path) -> Coder:
    """A coder of overcomplete or visaebench: its dictionary is used at length 1, and its BatchNorm is folded in."""
    stored = folder / "model.safetensors"
    tensors = read_tensors(stored)[0] if stored.is_file() else tensors_of(read_saved(folder / "sae.pt"))
    cfg = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if "top_k" not in cfg and "k" not in cfg:
        raise PrismaError(f"expected config.json with top_k in {folder}, or null for a ReLU coder; found none")
    said, theta = Said(cfg, folder / "config.json"), tensors.get("running_threshold")
    k = said.get("top_k", int | None, said.get("k", int | None))
    expect_only(tensors, OVERCOMPLETE, folder)
    weight, bias = matrix(tensors, f"{_LINEAR}.weight", folder), tensors.get(f"{_LINEAR}.bias")
    bias = torch.zeros(len(weight)) if bias is None else bias
    if (scale := tensors.get(f"{_NORM}.running_var")) is not None:
        factor = tensors[f"{_NORM}.weight"] / (scale + 1e-5).sqrt()
        weight = weight * factor[:, None]
        bias = (bias - tensors[f"{_NORM}.running_mean"]) * factor + tensors[f"{_NORM}.bias"]
    atoms = tensors["dictionary._weights"]
    atoms = (
        atoms / atoms.norm(dim=1, keepdim=True) * tensors.get("dictionary.multiplier", torch.zeros(())).view(()).exp()
    )
    m, d = weight.shape
    weights = {"W_enc": weight.T, "b_enc": bias, "W_dec": atoms, "b_dec": torch.zeros(d)}
    kind = "standard" if k is None else "topk" if theta is None else "batchtopk"
    if theta is not None:
        weights["threshold"] = threshold_of(theta, m, folder, batched=True)
    return filled(CoderConfig(kind, d, m, k, ("",), centred=False), weights, folder, {"source": "overcomplete"})


_LINEAR, _NORM = "encoder.final_block.0", "encoder.final_block.1"
OVERCOMPLETE = (
    *(f"{_LINEAR}.{name}" for name in ("weight", "bias")),
    *(f"{_NORM}.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    "dictionary._weights", "dictionary.multiplier", "running_threshold",
)  # fmt: skip
"""The tensors that its reader knows."""


def circuit_tracer(folder: Path, layer: int) -> Coder:
    """The transcoder of one layer of a set of circuit-tracer."""
    if type(layer) is not int or layer < 0:
        raise PrismaError(f"expected layer to be a whole number of at least 0; found {quoted(layer)}")
    tensors, _ = read_tensors(folder / f"layer_{layer}.safetensors")
    said = _yaml(folder / "config.yaml")
    if (kind := said.get("model_kind", "transcoder_set")) != "transcoder_set":
        raise PrismaError(f"expected a set of transcoders in {folder}; found model_kind {quoted(kind)}")
    tensors["W_enc"] = matrix(tensors, "W_enc", folder).T
    theta = tensors.pop("activation_function.threshold", None)
    d, m = tensors["W_enc"].shape
    if theta is not None:
        tensors["threshold"] = threshold_of(theta, m, folder, batched=False)
    hooks = ("feature_input_hook", "feature_output_hook")
    if missing := [name for name in hooks if not said.get(name)]:
        raise PrismaError(f"expected the name of a site as {missing[0]} in {folder / 'config.yaml'}; found none")
    reads, writes = (f"blocks.{layer}.{said[name]}" for name in hooks)
    config = CoderConfig(
        "standard" if theta is None else "jumprelu", d, m, None, (canonical(reads),), (), canonical(writes),
        tensors["b_dec"].shape[0], "W_skip" in tensors, False,
    )  # fmt: skip
    return filled(config, tensors, folder, {"source": "circuit_tracer"})


def _yaml(path: Path) -> dict[str, str]:
    """The settings of a YAML file that are words on their own line; of others, which no reader needs, an empty word."""
    lines = [line.partition(" #")[0] for line in read_text(path).splitlines() if not line.startswith((" ", "-", "#"))]
    return {name.strip(): word.strip(" \"'") for name, _, word in (line.partition(":") for line in lines)}


def crosscoder(folder: Path) -> Coder:
    """A crosscoder of Kissane and Nanda (`cc_weights.pt`) or of science-of-finetuning (`model.safetensors`)."""
    if (folder / "cc_weights.pt").is_file():
        tensors = tensors_of(read_saved(folder / "cc_weights.pt"))
        expect_only(tensors, ("W_enc", "b_enc", "W_dec", "b_dec"), folder)
        w_enc, w_dec = tensors["W_enc"], tensors["W_dec"]
        b_enc, b_dec = tensors["b_enc"], tensors["b_dec"]
    else:
        tensors, _ = read_tensors(folder / "model.safetensors")
        expect_only(tensors, ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"), folder)
        w_enc, w_dec = tensors["encoder.weight"], tensors["decoder.weight"].transpose(0, 1)
        b_enc, b_dec = tensors["encoder.bias"], tensors["decoder.bias"]
    n, d, m = matrix({"W_enc": w_enc}, "W_enc", folder, 3).shape
    if w_dec.shape != (m, n, d) or b_dec.shape != (n, d):
        raise PrismaError(
            f"expected a decoder of {n} models, {m} latents and width {d} in {folder}; found weights "
            f"{list(w_dec.shape)} and biases {list(b_dec.shape)}"
        )
    weights = {
        "W_enc": w_enc.reshape(n * d, m),
        "b_enc": b_enc,
        "W_dec": w_dec.reshape(m, n * d),
        "b_dec": b_dec.reshape(-1),
    }
    sites = tuple(f"model {i}" for i in range(n))
    config = CoderConfig("standard", n * d, m, None, sites, (d,) * n, centred=False)
    return filled(config, weights, folder, {"source": "crosscoder"})


def saev_or_overcomplete(folder: Path) -> Coder:
    """Two libraries call their file `sae.pt`; that of saev begins with JSON."""
    with open_file(folder / "sae.pt", "a coder") as file:
        is_saev = file.read(1) == b"{"
    return saev(folder / "sae.pt") if is_saev else overcomplete(folder)


def crosscoder_or_overcomplete(folder: Path) -> Coder:
    """Two layouts have `config.json` and `model.safetensors`; the tensors tell them apart."""
    return crosscoder(folder) if "encoder.weight" in names_in(folder / "model.safetensors") else overcomplete(folder)
