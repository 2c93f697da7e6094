"""All methods by one call: a planted model on which they must agree, and what must hold of each."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prisma import Logit, LogitDiff, PrismaError, Similarity, ViT, ViTConfig
from prisma.analysis.attribution.attribute import Attribute, attribute, attribute_network
from prisma.analysis.attribution.methods import METHODS
from prisma.analysis.attribution.questions import Neuron
from tests.variants import default_dtype, drawn, images_of, model_of

DIVIDING = ["integrated_gradients", "gradient_shap", "shapley_sampling", "kernel_shap"]


def linear_model() -> ViT:
    """Without layers and norms, the mean of the patches is read out: every patch adds a known share."""
    config = ViTConfig(
        image_size=6, patch_size=2, channels=2, n_layers=0, d_model=4, n_heads=2, d_mlp=4, n_classes=3, norm="none",
        class_token=False, pool="mean",
    )  # fmt: skip
    with default_dtype(torch.float64):
        return drawn(ViT(config).eval())


@pytest.mark.parametrize("method", [*DIVIDING, "occlusion", "exact_shapley", "lime", "rise"])
def test_on_a_linear_model_every_method_finds_what_each_patch_adds(method: str) -> None:
    model = linear_model()
    images = images_of(model)
    segments = torch.tensor([[0, 1, 2], [0, 1, 2], [3, 3, 3]]) if method == "exact_shapley" else None
    found = attribute(
        model, images, [1, 2], method, samples=200 if METHODS[method].samples else None, segments=segments
    )
    weight = (model.readout.head.weight @ model.embed.patch.weight)[[1, 2]] / 9  # type: ignore[operator]
    known = torch.einsum("bpx,bx->bp", patches(images), weight)
    if method == "exact_shapley":
        assert segments is not None
        sums = torch.zeros(2, 4, dtype=torch.float64).index_add(1, segments.flatten(), known)
        sizes = segments.flatten().bincount()
        known = (sums / sizes)[:, segments.flatten()]
    if method in ("lime", "rise"):
        pairs = [torch.stack([found.map[i], known[i]]) for i in range(2)]
        assert all(torch.corrcoef(pair)[0, 1] > 0.95 for pair in pairs)
        assert found.delta.isnan().all() and "divides nothing" in found.report()
        return
    torch.testing.assert_close(found.map, known, rtol=1e-9, atol=1e-9)
    if method in METHODS and not found.delta.isnan().any():
        assert found.delta.abs().max() < 1e-9
        torch.testing.assert_close(
            found.change, (model(images) - model(0 * images)).gather(1, torch.tensor([[1], [2]]))[:, 0]
        )


def patches(images: Tensor) -> Tensor:
    return images.unflatten(-1, (3, 2)).unflatten(-3, (3, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion", "kernel_shap", "shapley_sampling"])
def test_patches_that_change_places_take_their_numbers_along(method: str) -> None:
    """A model without positions: the map of a permuted image is the permuted map."""
    model = model_of("no_positions", image_size=4)
    images = images_of(model)
    grid = images.unflatten(-1, (2, 2)).unflatten(-3, (2, 2))
    turned = grid.flip(2).flip(4).flatten(2, 3).flatten(3, 4)
    samples = {"integrated_gradients": 12, "occlusion": None}.get(method, 400)
    one, other = (attribute(model, x, 1, method, samples=samples, tolerance=1).map for x in (images, turned))
    if method == "shapley_sampling":  # by chance
        torch.testing.assert_close(other[:, 1:], one[:, 1:].flip(1), atol=0.2 * one.abs().max().item(), rtol=0)
    else:
        torch.testing.assert_close(other[:, 1:], one[:, 1:].flip(1))
    assert not one[:, 0].any()


def test_a_difference_of_logits_is_the_difference_of_maps() -> None:
    model = model_of("base")
    images = images_of(model, n=3)
    targets = (LogitDiff([0, 1, 2], 3), [0, 1, 2], 3)
    for method, samples in {"integrated_gradients": 16, "kernel_shap": 16, "occlusion": None}.items():
        maps = [attribute(model, images, t, method, samples=samples, tolerance=1).map for t in targets]
        torch.testing.assert_close(maps[0], maps[1] - maps[2])


@pytest.mark.parametrize("target", [Neuron("blocks.0.mlp.post", 3), Neuron("blocks.1.resid_post", 2, token=None)])
def test_a_neuron_is_explained_as_a_logit_is(target: Neuron) -> None:
    model = model_of("base")
    images = images_of(model)
    found = attribute(model, images, target, samples=64)
    assert found.error.max() < 1e-5 and found.metadata["target"] == repr(target)
    dropped = attribute(model, images, target, "kernel_shap", samples=600)
    assert dropped.error.max() < 1e-6 and dropped.metadata["absent"] == "dropped"
    torch.testing.assert_close(found.value, dropped.value)


def test_a_prompt_of_a_clip_is_a_direction() -> None:
    model = model_of("clip", n_classes=0)
    direction = torch.randn(12, dtype=torch.float64)
    found = attribute(model, images_of(model), Similarity(direction), samples=48)
    torch.testing.assert_close(found.value, Similarity(direction)(model(images_of(model))))
    assert found.error.max() < 1e-4 and "completeness error at most" in found.report()


def test_the_default_is_the_predicted_class_and_passes_do_not_matter() -> None:
    model = model_of("base", image_size=4)
    images = images_of(model, n=3)
    predicted = model(images).argmax(-1)
    for method in [name for name in METHODS if name != "deep_lift"]:
        segments = 4 if method == "exact_shapley" else None
        options: Any = {"samples": 8 if METHODS[method].samples else None, "segments": segments, "tolerance": 1.0}
        whole, pieces = (
            attribute(model, images, t, method, batch=b, **options) for t, b in ((None, None), (predicted, 2))
        )
        torch.testing.assert_close(whole.map, pieces.map)
        assert whole.patches.shape == (3, 2, 2) and not whole.map.requires_grad


def test_a_baseline_that_is_given_is_what_stands_in() -> None:
    model = model_of("base")  # whose patches are dropped by default
    images, other = images_of(model), images_of(model, n=3)[2:]
    found = attribute(model, images, 1, "occlusion", baseline=other)
    changed = images.clone()
    changed[..., :2, :2] = other[..., :2, :2]
    assert found.metadata["absent"] == "baseline"
    torch.testing.assert_close(found.map[:, 1], (model(images) - model(changed))[:, 1])


def test_a_map_that_does_not_add_up_is_refused() -> None:
    model = model_of("sub_norms")
    with pytest.raises(PrismaError, match=r"adds up to within 0.0001 .* give more samples"):
        attribute(model, images_of(model), 0, samples=3, tolerance=1e-4)


def test_a_map_is_refined_until_it_adds_up() -> None:
    model = model_of("sub_norms")
    images = images_of(model)
    rough = attribute(model, images, 0, samples=32, tolerance=1).error.max()
    found = attribute(model, images, 0, tolerance=rough.item() * 0.9)
    assert found.error.max() < rough * 0.9


def test_a_network_of_another_library_is_explained_by_squares() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4)).double()
    images = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    exact = attribute_network(network, images, [1, 3], "exact_shapley", patch=3)
    fitted = attribute_network(network, images, [1, 3], "kernel_shap", patch=3)
    torch.testing.assert_close(exact.map, fitted.map)
    assert exact.error.max() < 1e-9 and exact.patches.shape == (2, 2, 2)
    assert attribute_network(network, images, Logit(1), patch=3).error.max() < 1e-6


def test_it_is_saved_and_read_and_drawn(tmp_path: object) -> None:
    model = model_of("video")
    found = attribute(model, images_of(model), 1, samples=8, tolerance=1)
    path = found.to_npz(f"{tmp_path}/map.npz")
    again = Attribute.from_npz(path)
    assert torch.equal(again.map, found.map) and again.axes["patches"] == ("image", "time", "row", "column")
    assert found.plot(beside=[attribute(model, images_of(model), 1, "occlusion")]).axes and found.plot("delta").axes


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    images = images_of(model)
    wrong = {
        "method of attribution; found 'ig'": {"method": "ig"},
        "expected absent to be dropped or baseline": {"absent": "gone", "method": "rise"},
        "at least 2 samples; found 1": {"samples": 1},
        "segments only for methods that remove patches": {"segments": 4},
        r"a number of rectangles, or a tensor of labels \[3, 3\]; found 3.0": {"segments": 3.0, "method": "occlusion"},
        "samples only for methods that draw or integrate; found them for occlusion": {
            "samples": 9,
            "method": "occlusion",
        },
        "absent only for methods that remove patches; found it for cp_lrp": {"absent": "dropped", "method": "cp_lrp"},
        "a baseline only for methods that have one; found it for relevance": {
            "baseline": images,
            "method": "relevance",
        },
        "no baseline where patches are dropped": {"baseline": images, "absent": "dropped", "method": "rise"},
        "batch to be at least 1; found -1": {"batch": -1, "method": "occlusion"},
        "a tolerance of at least 0; found -1": {"tolerance": -1.0},
        "a method of attribution; found 'None'": {"method": None},
        r"expected a baseline \[1, 2, 6, 6\], or one for each image": {"baseline": images[:, :, :3]},
        "expected a class from 0 to 4; found 7": {"target": 7},
    }
    for message, options in wrong.items():
        with pytest.raises(PrismaError, match=message):
            attribute(model, images, **options)  # type: ignore[arg-type]
    with pytest.raises(PrismaError, match="at least one image"):
        attribute(model, images[:0], 1)
