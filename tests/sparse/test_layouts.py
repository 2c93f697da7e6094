"""Coders in the files of other libraries, written by hand as those libraries write them, against their formulas."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from prisma.errors import PrismaError
from prisma.sparse.loading import load_coder

D, M, K = 4, 12, 3
X = torch.randn(9, D, generator=torch.Generator().manual_seed(5))


def drawn(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def top(p: Tensor, k: int = K) -> Tensor:
    places = p.topk(k).indices
    return torch.zeros_like(p).scatter(1, places, p.gather(1, places)).relu()


def config(folder: Path, name: str, **values: Any) -> None:
    (folder / name).write_text(json.dumps(values))


@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_sparsify(transcode: bool, activation: str, tmp_path: Path) -> None:
    """sae-lens 6.54 takes `num_latents` 0 literally, and transposes W_dec."""
    folder = tmp_path / "layers.3.mlp"
    folder.mkdir()
    w = drawn(**{"encoder.weight": (M, D), "encoder.bias": (M,), "W_dec": (M, D), "b_dec": (D,)})
    w |= drawn(W_skip=(D, D)) if transcode else {}
    save_file(w, folder / "sae.safetensors")
    config(
        folder, "cfg.json", activation=activation, expansion_factor=3, num_latents=0, k=K, transcode=transcode, d_in=D
    )
    coder = load_coder(folder)
    p = (X if transcode else X - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
    z = top(p)
    if activation == "groupmax":
        groups = p.view(len(X), K, -1)
        z = (groups * (groups == groups.amax(-1, keepdim=True))).flatten(1).relu()
    y = z @ w["W_dec"] + w["b_dec"] + (X @ w["W_skip"].T if transcode else 0)
    assert torch.allclose(coder.encode(X), z, atol=1e-5) and torch.allclose(coder(X), y, atol=1e-5)
    assert (coder.site, coder.kind, coder.config.width) == ("layers.3.mlp", activation, M)


class VisionModelSAERunnerConfig:
    """What ViT-Prisma pickles with its weights."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@pytest.mark.parametrize("nested", ["plain", "cfg", "autoencoder"])
def test_vit_prisma(nested: str, tmp_path: Path) -> None:
    w = drawn(W_enc=(D, M), b_enc=(M,), W_dec=(M, D), b_dec=(D,))
    values = {"hook_point_layer": 9, "layer_subtype": "hook_mlp_out", "activation_fn_str": "topk",
              "activation_fn_kwargs": {"k": K}, "normalize_activations": None, "model_name": "clip"}  # fmt: skip
    cfg = VisionModelSAERunnerConfig(**values)
    saved: Any = {"plain": w, "cfg": {"cfg": cfg, "state_dict": w}}.get(
        nested, {"config": cfg, "autoencoder": {"state_dict": w}}
    )
    torch.save(saved, tmp_path / ("weights.pt" if nested == "plain" else "n_images_130.pt"))
    if nested == "plain":
        config(tmp_path, "config.json", **values)
    coder = load_coder(tmp_path)
    z = top((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    assert torch.allclose(coder.encode(X), z, atol=1e-5) and torch.allclose(
        coder(X), z @ w["W_dec"] + w["b_dec"], atol=1e-5
    )
    assert coder.site == "blocks.9.mlp_out" and coder.metadata["model_name"] == "clip"


def test_vit_prisma_of_several_checkpoints_is_the_one_that_is_named_or_the_last(tmp_path: Path) -> None:
    w = drawn(W_enc=(D, M), b_enc=(M,), W_dec=(M, D), b_dec=(D,))
    config(tmp_path, "config.json", normalize_activations="none")
    for number in (99, 100):
        torch.save({**w, "b_dec": torch.full((D,), float(number))}, tmp_path / f"n_images_{number}.pt")
    assert load_coder(tmp_path).b_dec[0] == 100 and load_coder(tmp_path / "n_images_99.pt").b_dec[0] == 99
    torch.save({**w, "scaling_factor": torch.tensor(2.0)}, tmp_path / "n_images_101.pt")
    with pytest.raises(PrismaError, match=r"expected a coder whose scaling_factor is 1 in .*; found 2\.0"):
        load_coder(tmp_path)


def test_vit_prisma_gated_and_transcoder(tmp_path: Path) -> None:
    w = drawn(W_enc=(D, M), b_enc=(M,), W_dec=(M, D), b_dec=(D,), b_gate=(M,), r_mag=(M,), b_mag=(M,))
    torch.save(w, tmp_path / "weights.pt")
    config(tmp_path, "config.json", normalize_activations=None, architecture="gated")
    xc = X - w["b_dec"]
    z = (xc @ w["W_enc"] + w["b_gate"] > 0) * (xc @ w["W_enc"] * w["r_mag"].exp() + w["b_mag"]).relu()
    assert torch.allclose(load_coder(tmp_path).encode(X), z, atol=1e-5)
    w = drawn(W_enc=(D, M), b_enc=(M,), W_dec=(M, 5), b_dec=(D,), b_dec_out=(5,), W_skip=(5, D))
    torch.save(w, tmp_path / "weights.pt")
    config(tmp_path, "config.json", normalize_activations="none", is_transcoder=True)
    z = ((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    y = z @ w["W_dec"] + w["b_dec_out"] + X @ w["W_skip"].T
    assert torch.allclose(load_coder(tmp_path)(X), y, atol=1e-4)
    config(tmp_path, "config.json")
    with pytest.raises(
        PrismaError, match=r"expected a coder of raw activations in .* found normalize_activations='layer_norm'"
    ):
        load_coder(tmp_path)


SAEV: dict[str, Any] = {
    "relu": {"schema": 5, "cfg": {"activation": {"cls": "Relu", "params": {}}}},
    "topk": {"schema": 5, "cfg": {"activation": {"cls": "TopK", "params": {"top_k": K}}}},
    "batchtopk": {"schema": 5, "cfg": {"activation": {"cls": "BatchTopK", "params": {"top_k": K}}}},
    "topk, schema 1A": {"schema": "1A", "cls": "TopK", "cfg": {"top_k": K}},
    "topk, flat": {"schema": 3, "cfg": {"activation": {"top_k": K}}},
    "relu, first": {"d_vit": D, "exp_factor": 3},
}
"""Its headers, by what they say of the activation."""


@pytest.mark.parametrize("header", SAEV)
def test_saev_never_centres(header: str, tmp_path: Path) -> None:
    kind, w = header.split(",")[0], drawn(W_enc=(D, M), b_enc=(M,), W_dec=(M, D), b_dec=(D,))
    theta = {"activation.threshold": torch.tensor(0.8)} if kind == "batchtopk" else {}
    torch.save(w | theta, tmp_path / "body")
    (tmp_path / "sae.pt").write_bytes(json.dumps(SAEV[header]).encode() + b"\n" + (tmp_path / "body").read_bytes())
    p = X @ w["W_enc"] + w["b_enc"]
    z = {"relu": p.relu(), "topk": top(p), "batchtopk": p.relu() * (p > 0.8)}[kind]
    coder = load_coder(tmp_path / "sae.pt")
    assert torch.allclose(coder.encode(X), z, atol=1e-5) and torch.allclose(
        coder(X), z @ w["W_dec"] + w["b_dec"], atol=1e-5
    )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"cfg": {"lr": 1}}, "expected the activation in the first line of .*; found none"),
        ({"cfg": {"activation": {"cls": "Softplus"}}}, "expected the activation relu, .*; found 'Softplus'"),
        (
            {"cfg": {"activation": {"cls": "BatchTopK", "params": {"top_k": K}}}},
            "expected the threshold of a batchtopk",
        ),
        ({"cfg": {"activation": {"cls": "TopK", "params": {}}}}, "expected k, the number of active latents"),
    ],
)
def test_saev_of_an_unknown_kind_is_refused(header: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(drawn(W_enc=(D, M), b_enc=(M,), W_dec=(M, D), b_dec=(D,)), tmp_path / "body")
    (tmp_path / "sae.pt").write_bytes(json.dumps(header).encode() + b"\n" + (tmp_path / "body").read_bytes())
    with pytest.raises(PrismaError, match=message):
        load_coder(tmp_path / "sae.pt")


@pytest.mark.parametrize("theta", [-1.0, 0.8])
def test_dictionary_learning_with_and_without_a_threshold(theta: float, tmp_path: Path) -> None:
    w = drawn(**{"encoder.weight": (M, D), "encoder.bias": (M,), "decoder.weight": (D, M), "b_dec": (D,)})
    torch.save(w | {"k": torch.tensor(K), "threshold": torch.tensor(theta)}, tmp_path / "ae.pt")
    config(tmp_path, "config.json", trainer={"dict_class": "BatchTopKSAE", "submodule_name": "resid_post_layer_3"})
    p = (X - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
    z, coder = top(p) if theta < 0 else p.relu() * (p > theta), load_coder(tmp_path)
    assert coder.kind == ("topk" if theta < 0 else "batchtopk") and coder.site == "resid_post_layer_3"
    assert torch.allclose(coder.encode(X), z, atol=1e-5)
    assert torch.allclose(coder(X), z @ w["decoder.weight"].T + w["b_dec"], atol=1e-5)


def test_dictionary_learning_jumprelu_does_not_centre_and_matryoshka_has_prefixes(tmp_path: Path) -> None:
    w = drawn(W_enc=(D, M), b_enc=(M,), W_dec=(M, D), b_dec=(D,), threshold=(M,))
    torch.save(w, tmp_path / "ae.pt")
    config(tmp_path, "config.json", trainer={"dict_class": "JumpReluAutoEncoder"})
    p = X @ w["W_enc"] + w["b_enc"]
    assert torch.allclose(load_coder(tmp_path).encode(X), p.relu() * (p > w["threshold"]), atol=1e-5)
    w |= {"k": torch.tensor(K), "threshold": torch.tensor(0.5), "group_sizes": torch.tensor([4, 8])}
    torch.save(w, tmp_path / "ae.pt")
    config(tmp_path, "config.json", trainer={"dict_class": "MatryoshkaBatchTopKSAE"})
    assert load_coder(tmp_path).config.prefixes == (4, 12) and load_coder(tmp_path).kind == "matryoshka"


@pytest.mark.parametrize("file", ["sae.pt", "model.safetensors"])
def test_overcomplete_with_its_batch_norm(file: str, tmp_path: Path) -> None:
    start = "encoder.final_block"
    w = drawn(**{f"{start}.0.weight": (M, D), f"{start}.0.bias": (M,), "dictionary._weights": (M, D)})
    w |= drawn(**{f"{start}.1.{name}": (M,) for name in ("weight", "bias", "running_mean", "running_var")})
    w[f"{start}.1.running_var"] = w[f"{start}.1.running_var"].abs() + 0.1
    w["dictionary.multiplier"] = torch.tensor(0.3)
    (save_file if file.endswith("tensors") else torch.save)(w, tmp_path / file)
    config(tmp_path, "config.json", top_k=K)
    norm = torch.nn.BatchNorm1d(M).eval()
    norm.load_state_dict(
        {name.removeprefix(f"{start}.1."): x for name, x in w.items() if name.startswith(f"{start}.1.")}, strict=False
    )
    z = top(norm(X @ w[f"{start}.0.weight"].T + w[f"{start}.0.bias"]).relu().detach())
    y = z @ (w["dictionary._weights"] / w["dictionary._weights"].norm(dim=1, keepdim=True)) * torch.tensor(0.3).exp()
    coder = load_coder(tmp_path)
    assert torch.allclose(coder.encode(X), z, atol=1e-4) and torch.allclose(coder(X), y, atol=1e-4)


def test_circuit_tracer(tmp_path: Path) -> None:
    w = drawn(**{"W_enc": (M, D), "b_enc": (M,), "W_dec": (M, D), "b_dec": (D,), "activation_function.threshold": (M,)})
    save_file(w, tmp_path / "layer_2.safetensors")
    (tmp_path / "config.yaml").write_text(
        'model_kind: transcoder_set\nfeature_input_hook: "ln2.hook_normalized"\nfeature_output_hook: hook_mlp_out\n'
    )
    coder = load_coder(tmp_path, layer=2)
    p = X @ w["W_enc"].T + w["b_enc"]
    z = p.relu() * (p > w["activation_function.threshold"])
    assert torch.allclose(coder(X), z @ w["W_dec"] + w["b_dec"], atol=1e-5)
    assert (coder.site, coder.config.target) == ("blocks.2.ln2.normalized", "blocks.2.mlp_out")
    with pytest.raises(PrismaError, match="expected layer="):
        load_coder(tmp_path)


@pytest.mark.parametrize("layout", ["nanda", "finetuning"])
def test_crosscoders(layout: str, tmp_path: Path) -> None:
    w = drawn(W_enc=(2, D, M), b_enc=(M,), W_dec=(M, 2, D), b_dec=(2, D))
    if layout == "nanda":
        torch.save(w, tmp_path / "cc_weights.pt")
        config(tmp_path, "cfg.json", d_in=D, dict_size=M, n_models=2)
    else:
        named = {"encoder.weight": w["W_enc"], "encoder.bias": w["b_enc"], "decoder.bias": w["b_dec"]}
        save_file({**named, "decoder.weight": w["W_dec"].transpose(0, 1).contiguous()}, tmp_path / "model.safetensors")
        config(tmp_path, "config.json", num_layers=2)
    coder, both = load_coder(tmp_path), torch.stack([X, X.flip(0)], 1)
    z = (torch.einsum("nld,ldm->nm", both, w["W_enc"]) + w["b_enc"]).relu()
    y = torch.einsum("nm,mld->nld", z, w["W_dec"]) + w["b_dec"]
    assert torch.allclose(coder(both.flatten(1)), y.flatten(1), atol=1e-4) and len(coder.config.sites) == 2


LINEAR = {"encoder.weight": (M, D), "encoder.bias": (M,), "decoder.weight": (D, M)}


def test_dictionary_learning_is_known_by_its_class(tmp_path: Path) -> None:
    """The threshold of an AutoEncoderTopK is not used by its library unless it is asked to."""
    w = drawn(**LINEAR, b_dec=(D,))
    p = (X - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
    torch.save(w | {"k": torch.tensor(K), "threshold": torch.tensor(0.8)}, tmp_path / "ae.pt")
    config(tmp_path, "config.json", trainer={"dict_class": "AutoEncoderTopK"})
    assert load_coder(tmp_path).kind == "topk" and torch.allclose(load_coder(tmp_path).encode(X), top(p), atol=1e-5)
    config(tmp_path, "config.json", trainer={"dict_class": "TemporalSAE"})
    with pytest.raises(PrismaError, match=r"expected a dict_class of AutoEncoder, .*; found 'TemporalSAE'"):
        load_coder(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(PrismaError, match=r"expected config.json with the dict_class in .*several classes have k"):
        load_coder(tmp_path)


def test_dictionary_learning_without_settings_is_known_by_its_tensors(tmp_path: Path) -> None:
    w = drawn(W_enc=(D, M), b_enc=(M,), W_dec=(M, D), b_dec=(D,), threshold=(M,))
    torch.save(w, tmp_path / "ae.pt")
    p = X @ w["W_enc"] + w["b_enc"]
    assert torch.allclose(load_coder(tmp_path).encode(X), p.relu() * (p > w["threshold"]), atol=1e-5)
    w = drawn(**LINEAR, **{"decoder.bias": (D,)})
    torch.save(w, tmp_path / "ae.pt")
    z = (X @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    assert torch.allclose(load_coder(tmp_path)(X), z @ w["decoder.weight"].T + w["decoder.bias"], atol=1e-5)
    w = drawn(**LINEAR, bias=(D,))
    torch.save(w, tmp_path / "ae.pt")
    z = ((X - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    assert torch.allclose(load_coder(tmp_path)(X), z @ w["decoder.weight"].T + w["bias"], atol=1e-5)


def test_what_a_reader_would_leave_out_is_refused(tmp_path: Path) -> None:
    w = drawn(**{"encoder.final_block.0.weight": (M, D), "dictionary._weights": (M, D)})
    save_file(w, tmp_path / "model.safetensors")
    with pytest.raises(PrismaError, match=r"expected config.json with top_k"):
        config(tmp_path, "config.json", lr=1)
        load_coder(tmp_path)
    config(tmp_path, "config.json", top_k=None)
    assert load_coder(tmp_path).kind == "standard"
    save_file(w | drawn(thresholds=(M,)), tmp_path / "model.safetensors")
    with pytest.raises(PrismaError, match=r"expected the tensors encoder\.final_block.*; found 'thresholds' too"):
        load_coder(tmp_path)
    crosscoder = drawn(W_enc=(2, D, M), b_enc=(M,), W_dec=(M, 2, D), b_dec=(2, D), threshold=(M,))
    other = tmp_path / "other"
    other.mkdir()
    torch.save(crosscoder, other / "cc_weights.pt")
    config(other, "cfg.json", d_in=D)
    with pytest.raises(PrismaError, match="found 'threshold' too"):
        load_coder(other)
