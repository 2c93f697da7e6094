"""record, run and sweep: what they compute, and what they do not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import prisma
from prisma import LogitDiff, PrismaError, Set, Zero, record, run, sweep
from prisma.inventory import site_names
from prisma.sites import axes_of
from prisma.vit import Block, Readout, ViT
from tests.variants import images_of, model_of


@contextmanager
def counting(kind: type[torch.nn.Module]) -> Iterator[list[int]]:
    """Rows of every call of a module of this kind, while the block lasts (for models whose sites are known by then)."""
    rows: list[int] = []
    forward = kind.forward

    def counted(self: Any, x: Tensor, *rest: Any) -> Tensor:
        rows.append(len(x))
        return forward(self, x, *rest)

    kind.forward = counted  # type: ignore[method-assign]
    try:
        yield rows
    finally:
        kind.forward = forward  # type: ignore[method-assign]


# record and run


def test_recording_changes_nothing() -> None:
    model = model_of("large")
    images = images_of(model)
    with torch.no_grad():
        assert torch.equal(record(model, images, "blocks.*.resid_post")[0], model(images))
        assert torch.equal(run(model, images), model(images))


def test_nothing_is_left_on_the_model() -> None:
    model = model_of("base")
    images = images_of(model)
    modules = {name: dict(vars(module)) for name, module in model.named_modules()}
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    record(model, images, "*", {"blocks.*.attn.z": Zero().at(head=0)})
    sweep(model, images[:1], images[1:], "attn.z", LogitDiff(0, 1))
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == modules
    assert all(torch.equal(x, weights[name]) for name, x in model.state_dict().items())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("variant", ["base", "siglip", "norm_post"])
def test_stop_reads_the_same_and_runs_no_later_block(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    for site in site_names(model.config):
        _, acts = record(model, images, [site, "blocks.*.resid_post"])
        with counting(Block) as blocks, counting(Readout) as readouts:
            output, stopped = record(model, images, site, stop=True)
        needed = int(site.split(".")[1]) + 1 if site.startswith("blocks.") else 0
        in_readout = not site.startswith("blocks.") and site not in ("embed", "pos_embed", "ln_pre")
        assert torch.equal(stopped[site], acts[site])
        assert len(blocks) == (model.config.n_layers if in_readout else needed)
        assert len(readouts) == in_readout
        if not in_readout and needed:
            assert torch.equal(output, acts[f"blocks.{needed - 1}.resid_post"])


def test_stop_goes_to_the_last_of_several_sites() -> None:
    model = model_of("base", n_layers=4)
    site_names(model.config)
    with counting(Block) as blocks:
        record(model, images_of(model), ["blocks.2.attn.q", "embed", "blocks.0.mlp.*"], stop=True)
    assert len(blocks) == 3


def test_gradients_flow_through_what_was_recorded() -> None:
    model = model_of("base")
    images = images_of(model).requires_grad_()
    logits, acts = record(model, images, ["blocks.0.resid_post", "blocks.1.attn.pattern"])
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), acts["blocks.0.resid_post"], retain_graph=True)
    assert gradient.abs().max() > 0
    acts["blocks.1.attn.pattern"][:, 0, 0, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    with torch.no_grad():
        assert not record(model, images, "embed")[1]["embed"].requires_grad


def test_what_is_recorded_is_what_was_used() -> None:
    model = model_of("base")
    images = images_of(model)
    logits, acts = record(model, images, "blocks.1.*", {"blocks.0.attn.pattern": Zero().at(head=1)})
    again = model.readout(acts["blocks.1.resid_post"])
    torch.testing.assert_close(again, logits, rtol=0, atol=0)


def test_only_what_is_wanted_is_materialised(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = torch.nn.functional.scaled_dot_product_attention
    calls: list[int] = []

    def counted(*x: Any, **options: Any) -> Tensor:
        calls.append(1)
        return fused(*x, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    model = model_of("base", n_layers=3)
    record(model, images_of(model), "blocks.1.attn.pattern")
    assert len(calls) == 2


@pytest.mark.parametrize("read", ["blocks.9.attn.z", "nonsense", ["embed", "blocks.*.attn.w"]])
def test_unknown_sites_are_refused_before_anything_runs(read: Any) -> None:
    model = model_of("base")
    with counting(Block) as blocks, pytest.raises(PrismaError, match="no site of this model matches"):
        record(model, images_of(model), read)
    with pytest.raises(PrismaError, match="no site of this model matches"):
        run(model, images_of(model), {"blocks.0.attn.Q": Zero()})
    assert not blocks


# sweep


@dataclass(frozen=True)
class OfEachPair:
    """A metric with a state for each pair: the logit of that pair's class."""

    classes: tuple[int, ...]

    def __call__(self, logits: Tensor) -> Tensor:
        return logits[torch.arange(len(self.classes)), list(self.classes)]


def one_forward_each(
    model: ViT, target: Tensor, donor: Tensor, site: str, metric: Callable[[Tensor], Tensor], axis: str
) -> Tensor:
    """The slow twin of `sweep`: a whole forward for each layer and unit."""
    _, acts = record(model, donor, "*")
    rows = []
    for layer in range(model.config.n_layers):
        name = f"blocks.{layer}.{site}"
        units = acts[name].shape[axes_of(name).index(axis)]
        edits = [{name: Set(acts[name]).at(**{axis: unit})} for unit in range(units)]
        rows.append(torch.stack([metric(run(model, target, edit)).mean() for edit in edits]))
    return torch.stack(rows)


HEADS = ("attn.z", "attn.q", "attn.k", "attn.v", "attn.pattern", "attn.scores", "attn.result")
TOKENS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "ln1.normalized", "mlp.post")
COLUMNS = [
    *((site, "head") for site in HEADS),
    *((site, "token") for site in (*TOKENS, "attn.z")),
    ("attn.pattern", "query"),
]


@pytest.mark.parametrize("into", ["clean", "corrupt"])
@pytest.mark.parametrize(("site", "axis"), COLUMNS)
def test_sweep_equals_one_forward_per_unit(site: str, axis: str, into: str) -> None:
    model = model_of("base")
    clean, corrupt = images_of(model, 3, seed=1), images_of(model, 3, seed=2)
    metric = OfEachPair((4, 0, 2))
    target, donor = (clean, corrupt) if into == "clean" else (corrupt, clean)
    with torch.no_grad():
        expected = one_forward_each(model, target, donor, site, metric, axis)
        default = "head" if site in HEADS else "token"
        for batch in (64, 7, 2, 1):
            found = sweep(
                model, clean, corrupt, site, metric, into=into, batch=batch, axis=None if axis == default else axis
            )
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert expected.std() > 1e-6


@pytest.mark.parametrize("variant", ["siglip", "video_rotary", "norm_post", "registers", "attention_only_norm_none"])
def test_sweep_of_other_forms(variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = images_of(model, 1, seed=1), images_of(model, 1, seed=2)
    with torch.no_grad():
        for site, axis in (("attn.z", "head"), ("resid_pre", "token")):
            expected = one_forward_each(model, clean, corrupt, site, LogitDiff(0, 1), axis)
            torch.testing.assert_close(sweep(model, clean, corrupt, site, LogitDiff(0, 1)), expected)


def test_sweep_starts_each_layer_from_the_stored_residual() -> None:
    """Block evaluations: two recordings, then for each layer only the blocks from it on."""
    model = model_of("base", n_layers=5)
    layers, heads, pairs = 5, model.config.n_heads, 2
    clean, corrupt = images_of(model, pairs, seed=1), images_of(model, pairs, seed=2)
    site_names(model.config)
    with counting(Block) as rows:
        sweep(model, clean, corrupt, "attn.z", LogitDiff(0, 1))
    recording = 2 * layers
    assert len(rows) == recording + sum(layers - layer for layer in range(layers))
    assert sum(rows) == pairs * recording + pairs * heads * sum(layers - layer for layer in range(layers))


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 100])
def test_no_pass_of_a_sweep_is_larger_than_batch(batch: int) -> None:
    model = model_of("base")
    clean, corrupt = images_of(model, 4, seed=1), images_of(model, 4, seed=2)
    with counting(Block) as rows:
        sweep(model, clean, corrupt, "attn.z", LogitDiff(0, 1), batch=batch)
    assert max(rows) <= batch


def test_patching_everything_at_once_is_the_other_run() -> None:
    model = model_of("base")
    clean, corrupt = images_of(model, 1, seed=1), images_of(model, 1, seed=2)
    _, acts = record(model, corrupt, "blocks.0.resid_pre")
    torch.testing.assert_close(
        run(model, clean, {"blocks.0.resid_pre": Set(acts["blocks.0.resid_pre"])}), model(corrupt)
    )


IMAGES = torch.zeros(2, 2, 6, 6, dtype=torch.float64)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "shapes": ({"corrupt": IMAGES[:1]}, r"found \[2, 2, 6, 6\] and \[1, 2, 6, 6\]"),
    "no pair": ({"clean": IMAGES[:0], "corrupt": IMAGES[:0]}, r"found \[0, 2, 6, 6\]"),
    "images": ({"clean": IMAGES[..., :4], "corrupt": IMAGES[..., :4]}, r"this model takes .* found \[2, 2, 6, 4\]"),
    "site": ({"site": "attn.w"}, r"no site of this model matches 'blocks\.0\.attn\.w'"),
    "glob": ({"site": "attn.*"}, r"one site of every block.*found 'attn\.\*'"),
    "whole name": ({"site": "blocks.0.attn.z"}, r"no site of this model matches"),
    "axis": ({"axis": "neuron"}, r"attn\.z has the axes batch, token, head, d_head; there is no axis 'neuron'"),
    "batch axis": ({"axis": "batch"}, r"there is no axis 'batch' to sweep over"),
    "into": ({"into": "both"}, r"into must be clean or corrupt; found 'both'"),
    "batch": ({"batch": 0}, r"batch must be at least 1; found 0"),
    "metric of all images": ({"metric": lambda logits: logits.mean()}, r"one number per image, \[2\]; found \[\]"),
    "metric of all classes": ({"metric": lambda logits: logits}, r"one number per image, \[2\]; found \[2, 5\]"),
    "metric of no tensor": ({"metric": lambda logits: 1.0}, r"one number per image, \[2\]; found float"),
    "metric not finite": ({"metric": lambda logits: logits[:, 0] / 0}, r"the metric must be finite; found -?inf"),
}


@pytest.mark.parametrize(("change", "sentence"), REFUSED.values(), ids=REFUSED)
def test_sweep_refuses_in_one_sentence(change: dict[str, Any], sentence: str) -> None:
    arguments = {"clean": IMAGES, "corrupt": IMAGES, "site": "attn.z", "metric": LogitDiff(0, 1)} | change
    with pytest.raises(PrismaError, match=sentence) as error:
        prisma.sweep(model_of("base"), **arguments)
    assert "\n" not in str(error.value)


def test_every_site_of_a_block_can_be_swept() -> None:
    model = model_of("large", n_layers=1)
    clean, corrupt = images_of(model, 1, seed=1), images_of(model, 1, seed=2)
    sites = [name.removeprefix("blocks.0.") for name in site_names(model.config) if name.startswith("blocks.")]
    for site in sites:
        name = f"blocks.0.{site}"
        shape = record(model, clean, name)[1][name].shape
        for dim, axis in enumerate(axes_of(name)[1:], start=1):
            assert sweep(model, clean, corrupt, site, LogitDiff(0, 1), axis=axis).shape == (1, shape[dim])


def test_a_sweep_keeps_no_graph() -> None:
    model = model_of("base")
    images = images_of(model)
    assert not prisma.sweep(model, images, images, "attn.z", prisma.LogitDiff(0, 1)).requires_grad


def test_a_model_without_layers_has_nothing_to_sweep() -> None:
    model = model_of("no_layers")
    images = images_of(model)
    with pytest.raises(PrismaError, match="found n_layers=0"):
        prisma.sweep(model, images, images, "resid_post", prisma.LogitDiff(0, 1))
