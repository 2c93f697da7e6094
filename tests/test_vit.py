"""The model: equal to a slow twin and to timm, no idle part, and the same when compiled."""

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import prisma
from prisma import Add, Mean, PrismaError, Resample, Scale, Set, ViT, ViTConfig, Zero
from prisma.attention import Attention
from prisma.edits import Edit
from prisma.inventory import site_names
from prisma.sites import Tap
from tests.twin import Twin
from tests.variants import VARIANTS, config_of, images_of, largest, model_of


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_slow_twin(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    with torch.no_grad():
        assert largest(model(images) - Twin(model.config, model.state_dict())(images)) <= 1e-10


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_site_is_alive(variant: str) -> None:
    """Noise at any site changes the output, and a site has the axes that the vocabulary gives it."""
    model = model_of(variant)
    images = images_of(model)
    with torch.no_grad():
        logits, acts = prisma.record(model, images, "*")
        assert tuple(acts) == site_names(model.config)
        for site, x in acts.items():
            assert x.ndim == len(prisma.sites.axes_of(site)), site
            generator = torch.Generator().manual_seed(2)
            noisy = x + torch.randn(x.shape, generator=generator, dtype=x.dtype)
            assert largest(prisma.run(model, images, {site: Set(noisy)}) - logits) > 1e-6, f"{site} is idle"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_is_alive(variant: str) -> None:
    """Noise on any parameter changes the output, but for shifts shared by all keys, which softmax does not see."""
    model = model_of(variant)
    images = images_of(model)
    with torch.no_grad():
        before = model(images)
        for name, parameter in model.named_parameters():
            if not parameter.numel():
                continue
            kept = parameter.clone()
            parameter += 0.5 * torch.randn_like(parameter)
            change = largest(model(images) - before)
            parameter.copy_(kept)
            shared = name.endswith("attention_pool.k.bias") or (
                name.endswith("k_norm.bias") and model.config.rotary == "none"
            )
            assert change < 1e-10 if shared else change > 1e-6, f"{name} changes the output by {change}"


def test_the_variants_cover_the_vocabulary_and_the_choices() -> None:
    configs = [config_of(variant) for variant in VARIANTS]
    found = {axes for config in configs for axes in map(template, site_names(config))}
    assert found == set(prisma.sites.SITES)
    for name, allowed in ViTConfig.CHOICES.items():
        assert {getattr(config, name) for config in configs} == set(allowed)


def template(site: str) -> str:
    return ".".join("{l}" if part.isdigit() else part for part in site.split("."))


def test_sites_mean_what_they_say() -> None:
    """Sums of the residual stream, rows of the pattern, heads of the result."""
    model = model_of("layer_scale")
    _, acts = prisma.record(model, images_of(model), "*")
    at = lambda site: acts[f"blocks.1.{site}"]  # noqa: E731
    close = torch.testing.assert_close
    close(acts["blocks.0.resid_pre"], acts["embed"] + acts["pos_embed"])
    close(at("resid_pre"), acts["blocks.0.resid_post"])
    close(at("resid_mid"), at("resid_pre") + at("attn_out"))
    close(at("resid_post"), at("resid_mid") + at("mlp_out"))
    close(at("attn.pattern").sum(-1), torch.ones_like(at("attn.pattern")[..., 0]))
    scores = torch.einsum("bqhd,bkhd->bhqk", at("attn.q"), at("attn.k")) / model.config.d_head**0.5
    close(at("attn.scores"), scores)
    close(at("attn.z"), torch.einsum("bhqk,bkhd->bqhd", at("attn.pattern"), at("attn.v")))
    block = model.blocks[1]
    close(at("attn_out"), (at("attn.result").sum(2) + block.attn.out.bias) * block.scale1.weight)
    assert not acts["pos_embed"][:, : model.config.n_prefix].any()
    close(acts["pooled"], acts["ln_final"][:, 0])


def test_three_functions_make_the_forward() -> None:
    model = model_of("base")
    images = images_of(model)
    x = model.embed(images)
    middle = model.encode(x, stop=1)
    torch.testing.assert_close(model.readout(model.encode(middle, start=1)), model(images), rtol=0, atol=0)


DIRECTION = torch.linspace(-1, 1, 12, dtype=torch.float64)
COMPILED: dict[str, tuple[str, dict[str, Any]]] = {
    "set and add": (
        "base",
        {"blocks.0.attn.z": Set(torch.ones(4)).at(head=1), "*.resid_mid": Add(DIRECTION).at(token=0)},
    ),
    "order": ("dino", {"blocks.0.resid_pre": [Resample((1, 0)), Mean().at(token=[2, 3]), torch.tanh]}),
    "mask and pool": (
        "large",
        {
            "blocks.0.attn.pattern": Zero().where(torch.eye(10)[None, None].expand(2, 1, 10, 10) > 0),
            "pool.scores": Scale(0.5).at(head=1),
        },
    ),
    "video": ("video_rotary", {"blocks.0.attn.result": Scale(0.5).at(head=slice(1, 3))}),
}


@pytest.mark.parametrize(("variant", "edit"), COMPILED.values(), ids=COMPILED)
def test_compiled_equals_eager(variant: str, edit: dict[str, Any]) -> None:
    torch.compiler.reset()
    model = model_of(variant, n_layers=1)
    images = images_of(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        logits, acts = prisma.record(compiled, images, ["blocks.*.resid_post", "*.pattern"], edit)
        expected, wanted = prisma.record(model, images, ["blocks.*.resid_post", "*.pattern"], edit)
        for site, one in edit.items():
            assert largest(prisma.run(model, images, {site: one}) - model(images)) > 1e-6, site
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(dict(acts), dict(wanted))


def test_a_compiled_model_sees_a_changed_edit() -> None:
    torch.compiler.reset()
    model = model_of("base", n_layers=1)
    images = images_of(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    edits: list[dict[str, Edit] | None] = [None, *({"blocks.0.attn.z": Zero().at(head=h)} for h in range(2))]
    with torch.no_grad():
        results = []
        for edit in edits:
            logits, acts = prisma.record(compiled, images, ["blocks.*.resid_post", "*.pattern"], edit)
            expected, wanted = prisma.record(model, images, ["blocks.*.resid_post", "*.pattern"], edit)
            torch.testing.assert_close(logits, expected)
            torch.testing.assert_close(dict(acts), dict(wanted))
            results.append(logits)
    assert all(largest(results[0] - other) > 1e-6 for other in results[1:])


CONFIGS_OF_TIMM = {
    "class": ({}, {}),
    "mean": ({"global_pool": "avg", "class_token": False}, {"pool": "mean", "class_token": False, "norm_pooled": True}),
    "scaled": ({"init_values": 0.1, "qkv_bias": False}, {"layer_scale": True, "qkv_bias": False}),
}


@pytest.mark.parametrize("name", CONFIGS_OF_TIMM)
def test_equals_timm(name: str) -> None:
    theirs, ours = CONFIGS_OF_TIMM[name]
    torch.manual_seed(0)
    peer = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, num_classes=7, **theirs
    ).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model = ViT(
        ViTConfig(image_size=16, patch_size=4, n_layers=2, d_model=24, n_heads=3, d_mlp=48, n_classes=7, **ours)
    ).eval()
    model.load_state_dict(from_timm(peer.state_dict(), prefix=int(model.config.class_token)))
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert largest(model(images) - peer(images)) <= 1e-5


def from_timm(theirs: dict[str, Tensor], prefix: int) -> dict[str, Tensor]:
    """timm's tensors under our names; the class token takes its position with it."""
    renamed = {"attn.proj": "attn.out", "mlp.fc1": "mlp.pre", "mlp.fc2": "mlp.out", "norm1": "ln1", "norm2": "ln2"}
    renamed |= {"ls1.gamma": "scale1.weight", "ls2.gamma": "scale2.weight"}
    ours = {}
    for name, x in theirs.items():
        if name.startswith("blocks."):
            for old, new in renamed.items():
                name = name.replace(old, new)
            ours[name] = x
    for part in ("weight", "bias"):
        ours[f"embed.patch.{part}"] = (
            theirs[f"patch_embed.proj.{part}"].flatten(1) if part == "weight" else theirs["patch_embed.proj.bias"]
        )
        ours[f"readout.ln_final.{part}"] = theirs.get(f"norm.{part}", theirs.get(f"fc_norm.{part}"))
        ours[f"readout.head.{part}"] = theirs[f"head.{part}"]
    positions = theirs["pos_embed"][0]
    ours["embed.positions"] = positions[prefix:]
    ours["embed.prefix"] = theirs["cls_token"][0] + positions[:1] if prefix else positions[:0]
    return ours


def test_timm_is_the_peer_of_the_benchmark() -> None:
    from benchmarks.core import BASE

    with torch.device("meta"):
        peer = timm.create_model("vit_base_patch16_224", pretrained=False)
        ours = ViT(BASE)
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in ours.parameters()) + BASE.d_model


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (torch.zeros(1, 3, 6, 6), "found [1, 3, 6, 6]"),
        (torch.zeros(2, 6, 6), "found [2, 6, 6]"),
        (torch.zeros(1, 2, 6, 8), "found [1, 2, 6, 8]"),
        (torch.zeros(1, 2, 6, 6, dtype=torch.uint8), "found torch.uint8"),
        (
            torch.zeros(1, 2, 6, 6),
            "expected pixels of torch.float64, like the weights; found torch.float32: use images.to(torch.float64)",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused(images: Tensor, found: str) -> None:
    with pytest.raises(PrismaError) as error:
        model_of("base")(images)
    assert found in str(error.value)


def test_any_memory_layout_and_no_image_at_all() -> None:
    model = model_of("base")
    images = images_of(model, 3)
    expected = model(images)
    for same in (
        images.to(memory_format=torch.channels_last),
        images.mT.contiguous().mT,
        images.repeat(2, 1, 1, 1)[::2],
    ):
        close = expected if same.shape == images.shape and torch.equal(same, images) else model(same.contiguous())
        torch.testing.assert_close(model(same), close)
    assert model(images[:0]).shape == (0, model.config.n_classes)


def test_the_weights_follow_the_global_seed() -> None:
    config = config_of("large")
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(ViT(config).state_dict())
    torch.testing.assert_close(models[0], models[1], rtol=0, atol=0)


@pytest.mark.parametrize("variant", [name for name, changes in VARIANTS.items() if changes.get("n_layers") != 0])
def test_the_last_block_of_an_encoding_may_compute_the_first_tokens_only(variant: str) -> None:
    model = model_of(variant)
    with torch.no_grad():
        x = model.embed(images_of(model))
        whole, first = model.encode(x), model.encode(x, stop=1)
        for keep in (1, 2, 3):
            acts = Tap(frozenset({"blocks.0.attn.k", "blocks.0.attn.q"}), {})
            torch.testing.assert_close(model.encode(x, keep=keep), whole[:, :keep])
            torch.testing.assert_close(model.encode(x, stop=1, tap=acts, keep=keep), first[:, :keep])
            if model.config.attention == "joint":
                assert acts.tensors["blocks.0.attn.q"].shape[1] == keep
                assert acts.tensors["blocks.0.attn.k"].shape[1] == model.config.n_tokens


@pytest.mark.parametrize(
    ("variant", "plain"), [("base", True), ("no_qkv_bias", True), ("wide_heads", True), ("qk_norm", False)]
)
def test_few_queries_need_no_keys_of_their_own(variant: str, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(variant)
    monkeypatch.setattr(Attention, "project", None)
    with torch.no_grad():
        x = model.embed(images_of(model))
        if plain:
            assert model.encode(x, stop=1, keep=1).isfinite().all()
        else:
            with pytest.raises(TypeError):
                model.encode(x, stop=1, keep=1)
