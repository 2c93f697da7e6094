"""Coders in the format of SAELens: what is written is read again, and what SAELens reads computes the same."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prisma.errors import PrismaError
from prisma.sparse.coders import KINDS, Coder
from prisma.sparse.files import CFG, WEIGHTS, architecture_of, read_coder, write_coder
from tests.sparse.test_coders import random_coder

ARCHITECTURES = {
    "standard": "standard", "topk": "topk", "abstopk": "abstopk", "groupmax": "prisma_groupmax",
    "batchtopk": "jumprelu", "matryoshka": "jumprelu", "jumprelu": "jumprelu", "gated": "gated",
}  # fmt: skip
X = torch.randn(9, 4, generator=torch.Generator().manual_seed(5))


def coder_of(kind: str, **more: object) -> Coder:
    prefixes = {"prefixes": (4, 12)} if kind == "matryoshka" else {}
    return random_coder(kind, 4, 12, 3, 0, sites=("blocks.1.resid_post",), **prefixes, **more).float()


@pytest.mark.parametrize("kind", KINDS)
def test_a_coder_is_read_as_it_was_written(kind: str, tmp_path: Path) -> None:
    coder = coder_of(kind)
    coder.metadata["training"] = {"fvu": 0.25, "sites": ["a"]}
    write_coder(str(tmp_path), coder)
    again = read_coder(tmp_path)
    assert (
        again.config == coder.config
        and again.metadata == coder.metadata
        and architecture_of(again.config) == ARCHITECTURES[kind]
    )
    assert torch.equal(again.encode(X), coder.encode(X)) and torch.equal(again(X), coder(X))
    cfg = json.loads((tmp_path / CFG).read_text())
    assert cfg["metadata"]["hook_name"] == "blocks.1.resid_post" and cfg["dtype"] == "float32"
    assert int(cfg["metadata"]["sae_lens_version"].split(".")[0]) >= 6  # below, SAELens drops the metadata


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "groupmax"])
def test_without_our_block_it_is_what_saelens_sees_and_computes_the_same(kind: str, tmp_path: Path) -> None:
    """A topk coder must not be read as a relu one (SAELens #553), which has ten times as many active latents."""
    coder = coder_of(kind)
    write_coder(tmp_path, coder)
    cfg = json.loads((tmp_path / CFG).read_text())
    del cfg["metadata"]["prisma"]
    (tmp_path / CFG).write_text(json.dumps(cfg))
    again = read_coder(tmp_path)
    assert again.kind == ARCHITECTURES[kind] and again.site == coder.site
    assert torch.equal(again.encode(X), coder.encode(X)) and torch.equal(again(X), coder(X))


@pytest.mark.parametrize(
    ("kind", "skip", "name"),
    [
        ("standard", False, "transcoder"),
        ("standard", True, "skip_transcoder"),
        ("jumprelu", True, "jumprelu_skip_transcoder"),
        ("batchtopk", False, "jumprelu_transcoder"),
        ("topk", True, "prisma_topk_transcoder"),
    ],
)
def test_transcoders_have_the_names_of_saelens_where_it_has_one(
    kind: str, skip: bool, name: str, tmp_path: Path
) -> None:
    coder = coder_of(kind, target="blocks.1.mlp_out", d_out=5, skip=skip, centred=False)
    write_coder(tmp_path, coder)
    cfg, again = json.loads((tmp_path / CFG).read_text()), read_coder(tmp_path)
    assert cfg["architecture"] == name and cfg["apply_b_dec_to_input"] is False and cfg["d_out"] == 5
    assert again.config == coder.config and torch.equal(again(X), coder(X))


def test_a_crosscoder_keeps_its_sites(tmp_path: Path) -> None:
    coder = random_coder("topk", 7, 12, 3, 0, sites=("a@1", "a@2"), widths=(3, 4)).float()
    write_coder(tmp_path, coder)
    assert read_coder(tmp_path).config == coder.config
    assert json.loads((tmp_path / CFG).read_text())["architecture"] == "prisma_topk_crosscoder"


def test_selection_by_lengths_of_directions_becomes_selection_by_pre_activations(tmp_path: Path) -> None:
    tensors = {n: x.clone() for n, x in coder_of("topk").state_dict().items()}
    save_file(tensors, tmp_path / WEIGHTS)
    cfg = {
        "architecture": "topk",
        "d_in": 4,
        "d_sae": 12,
        "dtype": "float32",
        "k": 3,
        "rescale_acts_by_decoder_norm": True,
    }
    (tmp_path / CFG).write_text(json.dumps(cfg))
    lengths = tensors["W_dec"].norm(dim=1)
    p = ((X - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]) * lengths
    kept = p.topk(3).indices
    z = torch.zeros_like(p).scatter(1, kept, p.gather(1, kept).relu()) / lengths
    coder = read_coder(tmp_path)
    assert torch.allclose(coder(X), z @ tensors["W_dec"] + tensors["b_dec"], atol=1e-5)
    assert torch.allclose(coder.W_dec.norm(dim=1), torch.ones(12))


def test_files_of_before_version_6_are_read(tmp_path: Path) -> None:
    save_file(coder_of("topk").state_dict(), tmp_path / WEIGHTS)
    cfg = {"hook_point": "blocks.3.hook_resid_post", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3},
           "d_in": 4, "d_sae": 12, "normalize_activations": False, "model_name": "vit"}  # fmt: skip
    (tmp_path / CFG).write_text(json.dumps(cfg))
    coder = read_coder(tmp_path)
    assert (coder.kind, coder.config.k, coder.site, coder.metadata["model_name"]) == (
        "topk",
        3,
        "blocks.3.resid_post",
        "vit",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"normalize_activations": "layer_norm"},
            "expected a coder of raw activations in .*normalize_activations='layer_norm'",
        ),
        ({"architecture": "temporal"}, "expected kind to be one of"),
        ({"k": 40}, "expected k to be at most the number of latents"),
        ({"architecture": "gated"}, "b_gate is missing"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    save_file(coder_of("topk").state_dict(), tmp_path / WEIGHTS)
    (tmp_path / CFG).write_text(json.dumps({"architecture": "topk", "d_in": 4, "d_sae": 12, "k": 3, **change}))
    with pytest.raises(PrismaError, match=message):
        read_coder(tmp_path)


def test_weights_without_numbers_are_neither_written_nor_read(tmp_path: Path) -> None:
    coder = coder_of("topk")
    coder.b_enc.data[0] = torch.inf
    with pytest.raises(PrismaError, match="expected finite weights of a coder"):
        write_coder(tmp_path, coder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["activation_fn_str", "activation_fn"])
def test_a_word_of_an_earlier_version_decides_the_kind(word: str, tmp_path: Path) -> None:
    save_file(coder_of("topk").state_dict(), tmp_path / WEIGHTS)
    cfg = {"d_in": 4, "d_sae": 12, "activation_fn_kwargs": {"k": 3}}
    (tmp_path / CFG).write_text(json.dumps(cfg | {word: "topk"}))
    assert torch.equal(read_coder(tmp_path).encode(X), coder_of("topk").encode(X))
    (tmp_path / CFG).write_text(json.dumps(cfg | {word: "relu"}))
    with pytest.raises(PrismaError, match=r"expected a kind of coder that keeps k latents.*found k=3"):
        read_coder(tmp_path)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (5, "expected what a coder says of its training in .*; found 5"),
        ({"tokens": 5}, "expected tokens of the training in .* to be text or a list of which each is text; found 5"),
        ({"l0": "many"}, "expected l0 of the training in .* to be a number; found 'many'"),
        ({"fvu": [0.1]}, "expected fvu of the training in"),
        ({"model_sha256": {"": 5}}, "expected the hash of each model by its name in .*; found {'': 5}"),
    ],
)
def test_what_a_coder_says_of_its_training_has_types(told: object, message: str, tmp_path: Path) -> None:
    write_coder(tmp_path, random_coder("topk", 4, 12, 3, 0).float())
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    cfg["metadata"]["prisma"]["training"] = told
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(PrismaError, match=message):
        read_coder(tmp_path)


def test_sizes_are_only_what_a_file_says_until_they_are_those_of_the_weights(tmp_path: Path) -> None:
    """Nothing of 40 PB is made."""
    write_coder(tmp_path, random_coder("topk", 4, 12, 3, 0).float())
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    cfg["metadata"]["prisma"]["config"] |= {"d": 10**8, "width": 10**8}
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(PrismaError, match=r"W_enc is \[4, 12\] instead of \[100000000, 100000000\]"):
        read_coder(tmp_path)
    cfg["metadata"]["prisma"] = [1]
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(PrismaError, match=r"expected what Prisma says of a coder in .*; found \[1\]"):
        read_coder(tmp_path)
