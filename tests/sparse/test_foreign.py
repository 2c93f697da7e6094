"""Files of other libraries that state something of another type, another size or nothing: refused, never guessed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from prisma.errors import PrismaError
from prisma.sparse.foreign import Said, threshold_of
from prisma.sparse.loading import load_coder

D, M, K = 4, 12, 3


def drawn(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


OURS = drawn(W_enc=(D, M), b_enc=(M,), W_dec=(M, D), b_dec=(D,))
ROWS = drawn(**{"encoder.weight": (M, D), "encoder.bias": (M,), "W_dec": (M, D), "b_dec": (D,)})
LINEAR = drawn(**{"encoder.weight": (M, D), "encoder.bias": (M,), "decoder.weight": (D, M), "b_dec": (D,)})
ATOMS = drawn(
    **{"encoder.final_block.0.weight": (M, D), "encoder.final_block.0.bias": (M,), "dictionary._weights": (M, D)}
)
CROSSED = drawn(W_enc=(2, D, M), b_enc=(M,), W_dec=(M, 2, D), b_dec=(2, D))
HOOKS = "feature_input_hook: ln2.hook_normalized  # read\nfeature_output_hook: 'hook_mlp_out'\n"
K_AND_THETA = {"k": torch.tensor(K), "threshold": torch.tensor(0.5)}


def written(folder: Path, library: str, settings: Any, weights: dict[str, Tensor]) -> Path:
    """A folder as a library writes it, with other settings or weights."""
    if library == "circuit_tracer":
        (folder / "config.yaml").write_text(settings.get("yaml", HOOKS))
        save_file({**OURS, "W_enc": OURS["W_enc"].T.contiguous(), **weights}, folder / "layer_0.safetensors")
        return folder
    if library == "saev":
        torch.save({**OURS, **weights}, folder / "tensors")
        (folder / "sae.pt").write_bytes(json.dumps(settings).encode() + b"\n" + (folder / "tensors").read_bytes())
        return folder
    own: dict[str, Any]
    name, file, own, tensors = {
        "saelens": ("cfg.json", "sae_weights.safetensors", {"architecture": "topk", "k": K}, OURS),
        "sparsify": ("cfg.json", "sae.safetensors", {"activation": "topk", "k": K, "num_latents": 0}, ROWS),
        "vit_prisma": ("config.json", "weights.pt", {"normalize_activations": None}, OURS),
        "dictionary_learning": ("config.json", "ae.pt", {"dict_class": "BatchTopKSAE"}, {**LINEAR, **K_AND_THETA}),
        "overcomplete": ("config.json", "model.safetensors", {"top_k": K}, ATOMS),
        "crosscoder": ("cfg.json", "cc_weights.pt", {}, CROSSED),
    }[library]
    said = {**own, **settings} if isinstance(settings, dict) else settings
    (folder / name).write_text(json.dumps({"trainer": said} if library == "dictionary_learning" else said))
    save = torch.save if file.endswith(".pt") else save_file
    save({**tensors, **weights}, folder / file)
    return folder


@pytest.mark.parametrize(
    "library",
    [
        "saelens",
        "sparsify",
        "vit_prisma",
        "dictionary_learning",
        "overcomplete",
        "crosscoder",
        "circuit_tracer",
        "saev",
    ],
)
def test_the_folders_of_these_tests_are_read_as_they_are(library: str, tmp_path: Path) -> None:
    settings = {"cfg": {"activation": {"cls": "TopK", "params": {"top_k": K}}}} if library == "saev" else {}
    coder = load_coder(written(tmp_path, library, settings, {}), layer=0 if library == "circuit_tracer" else None)
    assert coder.config.width == M and coder.config.d == (2 * D if library == "crosscoder" else D)
    if library == "circuit_tracer":
        assert (coder.site, coder.config.target) == ("blocks.0.ln2.normalized", "blocks.0.mlp_out")


@pytest.mark.parametrize(
    ("library", "settings", "message"),
    [
        ("saelens", {"d_in": 5}, "expected d_in in .* to be that of the weights, 4; found 5"),
        ("saelens", {"d_sae": 7}, "expected d_sae in .* to be that of the weights, 12; found 7"),
        ("saelens", {"apply_b_dec_to_input": "false"}, "apply_b_dec_to_input in .* to be true or false; found 'false'"),
        ("saelens", {"metadata": [1]}, r"expected settings by name in .*; found \[1\]"),
        ("saelens", {"metadata": {"hook_name": ["a"]}}, "hook_name in .* to be text or none; found"),
        ("saelens", {"activation_fn_kwargs": [3]}, r"expected settings by name in .*; found \[3\]"),
        ("saelens", {"k": 2.5}, "expected k in .* to be a whole number or none; found 2.5"),
        ("saelens", {"architecture": ["topk"]}, "expected architecture in .* to be text"),
        ("saelens", {"architecture": "transcoder", "k": None, "apply_b_dec_to_input": True},
         "expected apply_b_dec_to_input=false of a transcoder"),
        ("sparsify", {"transcode": "false"}, "expected transcode in .* to be true or false; found 'false'"),
        ("sparsify", {"num_latents": 99}, "expected num_latents in .* to be that of the weights, 12; found 99"),
        ("sparsify", {"d_in": 9}, "expected d_in in .* to be that of the weights, 4; found 9"),
        ("sparsify", {"activation": ["topk"]}, "expected activation in .* to be text"),
        ("sparsify", {"k": -1}, "expected k to be from 1 to 100,000,000; found -1"),
        ("vit_prisma", {"d_in": 8}, "expected d_in in .* to be that of the weights, 4; found 8"),
        ("vit_prisma", {"layer_subtype": {}, "hook_point_layer": 1}, "expected layer_subtype in .* to be text"),
        ("vit_prisma", {"activation_fn_str": "topk", "activation_fn_kwargs": [3]}, "expected settings by name"),
        ("dictionary_learning", {"submodule_name": {"a": 1}}, "expected submodule_name in .* to be text or none"),
        ("dictionary_learning", {"dict_size": 5}, "expected dict_size in .* to be that of the weights, 12; found 5"),
        ("dictionary_learning", [1], r"expected settings by name in .*; found \[1\]"),
        ("overcomplete", {"top_k": "3"}, "expected top_k in .* to be a whole number or none; found '3'"),
        ("saev", {"cfg": 5}, "expected settings by name in .*; found 5"),
        ("saev", {"cfg": {"activation": {"cls": ["TopK"]}}}, "expected cls in .* to be text or none"),
        ("saev", {"cfg": {"activation": {"cls": "TopK", "params": [3]}}}, "expected settings by name"),
        ("circuit_tracer", {"yaml": "scan: x\n"}, "the name of a site as feature_input_hook in .*; found none"),
        ("circuit_tracer", {"yaml": f"model_kind: cross_layer_transcoder\n{HOOKS}"}, "expected a set of transcoders"),
    ],
)  # fmt: skip
def test_what_they_say_wrongly_is_refused(library: str, settings: Any, message: str, tmp_path: Path) -> None:
    written(tmp_path, library, settings, {})
    with pytest.raises(PrismaError, match=message):
        load_coder(tmp_path, layer=0 if library == "circuit_tracer" else None)


@pytest.mark.parametrize(
    ("library", "weights", "message"),
    [
        ("saelens", {"W_enc": torch.ones(D, M, dtype=torch.int8)}, "W_enc is torch.int8, not floating point"),
        ("saelens", {"b_enc": torch.ones(M) * 1j}, "b_enc is torch.complex64, not floating point"),
        ("saelens", {"W_enc": torch.ones(D * M)}, r"expected W_enc with 2 axes .*; found one of the shape \[48\]"),
        ("dictionary_learning", {"k": torch.tensor(2.7)}, "expected k to be a whole number in .*; found 2.7"),
        ("dictionary_learning", {"k": torch.tensor([3, 4])}, r"expected k to be a whole number in .*; found \[3, 4\]"),
        ("dictionary_learning", {"threshold": torch.rand(5)}, "expected one threshold, or one for each of 12 latents"),
        ("overcomplete", {"running_threshold": torch.tensor(-1.0)}, "threshold of a batchtopk coder .* none was set"),
        ("overcomplete", {"dictionary.multiplier": torch.rand(D)}, "expected a whole sparse coder"),
        ("crosscoder", {"W_dec": torch.randn(2, M, D)}, r"a decoder of 2 models, 12 latents .* weights \[2, 12, 4\]"),
        ("crosscoder", {"b_dec": torch.randn(2 * D)}, r"biases \[8\]"),
    ],
)
def test_weights_of_another_form_are_refused(
    library: str, weights: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    written(tmp_path, library, {}, weights)
    with pytest.raises(PrismaError, match=message):
        load_coder(tmp_path)


def test_settings_have_types() -> None:
    said = Said({"k": 3, "none": None, "inner": {"a": "b"}}, Path("cfg.json"))
    assert said.get("k", int) == 3 and said.get("absent", int, 7) == 7 and said.get("none", int | None) is None
    assert (
        said.inside("inner").get("a", str) == "b" and said.inside("none").values == {} == said.inside("absent").values
    )
    said.expect_sizes({"k": 3, "none": 4, "absent": 5})
    with pytest.raises(PrismaError, match=re.escape("expected k in cfg.json to be text; found 3")):
        said.get("k", str)


def test_one_threshold_is_that_of_every_latent() -> None:
    assert threshold_of(torch.tensor(0.5), 3, Path(), batched=True).tolist() == [0.5] * 3
    assert threshold_of(torch.tensor([-1.0, 2, 3]), 3, Path(), batched=False).tolist() == [-1, 2, 3]
