"""record, run and sweep: what they compute, and what they do not."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from prisma import LogitDiff, PrismaError, Scale, Zero, record, run, sweep
from prisma.inventory import site_names
from prisma.runs import attention_stream, sites_of_every_block
from prisma.vit import Block, Readout
from tests.counting import counting
from tests.variants import images_of, model_of, tower_of

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


def test_two_patterns_for_the_edits_of_one_site_are_refused() -> None:
    model = model_of("base")
    images = images_of(model)
    for edit in (
        {"blocks.*.attn_out": Scale(2.0), "blocks.0.attn_out": Scale(2.0)},
        {"blocks.0.attn_out": Scale(2.0), "blocks.0.hook_attn_out": Zero()},
    ):
        sentence = r"one pattern for the edits of blocks\.0\.attn_out; found 'blocks.* and 'blocks.*: write several"
        with pytest.raises(PrismaError, match=sentence):
            run(model, images, edit)
        with pytest.raises(PrismaError, match=sentence):
            record(model, images, "embed", edit)
    both = run(model, images, {"blocks.0.attn_out": [Scale(2.0), Scale(3.0)]})
    assert torch.equal(both, run(model, images, {"blocks.0.attn_out": Scale(6.0)}))


FOREIGN: dict[str, tuple[Any, str]] = {
    "array": (lambda x: x.numpy(), "as a tensor .*; found a numpy.ndarray: use torch.stack"),
    "list": (list, "as a tensor .*; found a list"),
    "picture": (lambda x: Image.new("RGB", (6, 6)), "as a tensor .*; found a PIL.Image"),
    "nothing": (lambda x: None, "as a tensor .*; found a NoneType"),
    "bytes": (lambda x: (x * 255).to(torch.uint8), "found torch.uint8"),
    "unbatched": (lambda x: x[0], r"\[batch, channel, height, width\] = \[batch, 2, 6, 6\]; found \[2, 6, 6\]"),
    "precision": (lambda x: x.half(), "pixels of torch.float64, like the weights; found torch.float16"),
    "device": (lambda x: x.to("meta"), r"images on cpu, like the model; found them on meta: use images.to\('cpu'\)"),
}


@pytest.mark.parametrize(("change", "sentence"), FOREIGN.values(), ids=FOREIGN)
def test_inputs_that_are_no_batch_of_tensors_are_one_sentence(change: Any, sentence: str) -> None:
    model = model_of("base")
    inputs = change(images_of(model))
    with pytest.raises(PrismaError, match=rf"expected .*{sentence}"):
        record(model, inputs, "embed")
    with pytest.raises(PrismaError, match=rf"expected .*{sentence}"):
        run(model, inputs)


def test_a_model_in_a_wrapper_is_asked_for_by_its_name() -> None:
    model = model_of("base")
    wrapped: list[tuple[Any, str]] = [
        (nn.DataParallel(model), "found a torch.DataParallel: pass its .module"),
        (type("Loaded", (), {"model": model})(), "found a tests.Loaded: pass its .model"),
        (nn.Linear(2, 2), "found a torch.Linear$"),
        (np.zeros(3), "found a numpy.ndarray$"),
    ]
    for foreign, sentence in wrapped:
        with pytest.raises(PrismaError, match=rf"^expected a prisma.ViT; {sentence}"):
            record(foreign, images_of(model), "embed")


def test_attention_reads_the_stream_after_time_in_divided_attention() -> None:
    assert attention_stream(model_of("base"), 1) == "blocks.1.resid_pre"
    assert attention_stream(model_of("divided"), 1) == "blocks.1.resid_time"
    assert attention_stream(tower_of("base"), 0) == "blocks.0.resid_pre"


def test_sites_of_every_block_are_named_in_order() -> None:
    assert sites_of_every_block(model_of("base", n_layers=3), "attn.hook_z") == [f"blocks.{i}.attn.z" for i in range(3)]
