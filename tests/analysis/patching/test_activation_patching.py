"""Activation patching: every cell equals a forward of its own, and nothing is computed that need not be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import prisma
from prisma import LogitDiff, PrismaError, Probability, Set, record, run, sweep
from prisma.analysis.patching.activation_patching import ActivationPatching, activation_patching, patch_sets
from prisma.attention import Attention
from prisma.inventory import site_names
from prisma.layers import MLP
from prisma.sites import axes_of
from prisma.vit import ViT
from tests.counting import counting
from tests.variants import VARIANTS, WITH_LAYERS, images_of, model_of


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
    _, acts = record(model, donor, f"blocks.*.{site}")
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


def test_patch_starts_each_layer_where_it_differs() -> None:
    """Block evaluations: those of two runs, and for each patched run those from its layer on, all in one pass."""
    model = model_of("base", n_layers=5)
    layers, heads, pairs = 5, model.config.n_heads, 2
    clean, corrupt = images_of(model, pairs, seed=1), images_of(model, pairs, seed=2)
    site_names(model.config)
    with counting(MLP) as rows:
        sweep(model, clean, corrupt, "attn.z", LogitDiff(0, 1))
    assert len(rows) == layers + 1  # of the last block, runs that were patched before it compute fewer tokens
    assert sum(rows) == pairs * 2 * layers + pairs * heads * sum(layers - layer for layer in range(layers))


def test_no_attention_is_computed_where_z_is_patched_nor_for_tokens_that_nothing_reads() -> None:
    model = model_of("base", n_layers=4)
    clean, corrupt = images_of(model, 1, seed=1), images_of(model, 1, seed=2)
    layers, heads, tokens = 4, model.config.n_heads, model.config.n_tokens
    queries: list[tuple[int, int]] = []

    class Counted(Attention):
        def few(self, x_BQM: Tensor, x_BTM: Tensor) -> Tensor:
            queries.append((len(x_BQM), x_BQM.shape[1]))
            return super().few(x_BQM, x_BTM)

        def attend(self, q: Tensor, k: Tensor, v: Tensor, tap: Any) -> Tensor:
            queries.append((len(q), q.shape[1]))
            return super().attend(q, k, v, tap)

    for block in model.blocks:
        block.attn.__class__ = Counted
    sweep(model, clean, corrupt, "attn.z", LogitDiff(0, 1))
    together = [(2 + heads * layer, tokens) for layer in range(layers - 1)]
    assert sorted(queries) == sorted([*together, (2, tokens), (heads * (layers - 1), 1)])
    for site, attended in (("mlp_out", 3), ("mlp.post", 3), ("mlp.pre", 6), ("resid_mid", 3), ("attn_out", 3)):
        queries.clear()
        sweep(model, clean, corrupt, site, LogitDiff(0, 1), axis="token")
        assert len([rows for rows, _ in queries if rows > 2]) == attended, site


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 100])
def test_no_pass_of_a_sweep_is_larger_than_batch(batch: int) -> None:
    model = model_of("base")
    clean, corrupt = images_of(model, 4, seed=1), images_of(model, 4, seed=2)
    with counting(MLP) as rows:
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
    "no pair": (
        {"clean": IMAGES[:0], "corrupt": IMAGES[:0]},
        "expected at least one pair of clean and corrupt; found none",
    ),
    "images": ({"clean": IMAGES[..., :4], "corrupt": IMAGES[..., :4]}, r"expected images .* found \[2, 2, 6, 4\]"),
    "site": ({"site": "attn.w"}, r"no site of this model matches 'attn\.w'; the nearest are attn\.z"),
    "glob": ({"site": "attn.*"}, r"one site of every block.*found 'attn\.\*'"),
    "whole name": ({"site": "blocks.0.attn.z"}, r"expected a site of every block, without its number, such as attn\.z"),
    "axis": (
        {"axis": "neuron"},
        r"expected an axis of attn\.z to sweep over \(token, head, d_head, component\); found 'neuron'",
    ),
    "batch axis": ({"axis": "batch"}, r"to sweep over .*; found 'batch'"),
    "axis of groups": ({"axis": "component", "groups": 2}, r"whole site, which cannot be grouped; found groups=2"),
    "into": ({"into": "both"}, r"expected into to be clean or corrupt; found 'both'"),
    "batch": ({"batch": 0}, r"expected batch to be at least 1; found 0"),
    "metric of all images": ({"metric": lambda logits: logits.mean()}, r"one number per image, \[2\]; found \[\]"),
    "metric of all classes": ({"metric": lambda logits: logits}, r"one number per image, \[2\]; found \[2, 5\]"),
    "metric of no tensor": ({"metric": lambda logits: 1.0}, r"one number per image, \[2\]; found float"),
    "metric not finite": ({"metric": lambda logits: logits[:, 0] / 0}, r"a metric that is finite; found -?inf"),
}


@pytest.mark.parametrize(("change", "sentence"), REFUSED.values(), ids=REFUSED)
def test_sweep_refuses_in_one_sentence(change: dict[str, Any], sentence: str) -> None:
    arguments = {"clean": IMAGES, "corrupt": IMAGES, "site": "attn.z", "metric": LogitDiff(0, 1)} | change
    with pytest.raises(PrismaError, match=sentence) as error:
        activation_patching(model_of("base"), **arguments)
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


@pytest.mark.parametrize("variant", WITH_LAYERS)
def test_every_form_equals_one_forward_per_unit(variant: str) -> None:
    """With four patches of an image, in which every token is patched; all sites of nine patches are above."""
    model = model_of(variant, **({} if "image_size" in VARIANTS[variant] else {"image_size": 4}))
    clean, corrupt = images_of(model, 2, seed=1), images_of(model, 2, seed=2)
    columns = [("attn.z", "head"), ("resid_pre", "token"), ("resid_mid", "token"), ("attn_out", "token")]
    columns += [("mlp.post", "token"), ("mlp_out", "token")] if model.config.d_mlp else []
    columns += [("time.z", "head"), ("time_out", "token")] if model.config.attention == "divided" else []
    with torch.no_grad():
        for site, axis in columns:
            expected = one_forward_each(model, clean, corrupt, site, LogitDiff(0, 1), axis)
            found = sweep(model, clean, corrupt, site, LogitDiff(0, 1), axis=axis)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
            assert expected.std() > 0


def test_a_patching_has_values_errors_and_both_runs(tmp_path: Path) -> None:
    model = model_of("base")
    clean, corrupt = images_of(model, 5, seed=1), images_of(model, 5, seed=2)
    found = activation_patching(model, clean, corrupt, "attn.z", Probability((0, 1, 2, 3, 4)), into="corrupt", batch=3)
    assert found.values.shape == (5, 2, 3)
    torch.testing.assert_close(found.effect, found.values.mean(0))
    torch.testing.assert_close(found.stderr, found.values.std(0) / 5**0.5)
    torch.testing.assert_close(found.change_stderr, (found.values - found.corrupt[:, None, None]).std(0) / 5**0.5)
    with torch.no_grad():
        torch.testing.assert_close(found.clean, Probability((0, 1, 2, 3, 4))(model(clean)))
        torch.testing.assert_close(found.corrupt, Probability((0, 1, 2, 3, 4))(model(corrupt)))
    share = (found.effect - found.corrupt.mean()) / (found.clean.mean() - found.corrupt.mean())
    torch.testing.assert_close(found.normalised(), share)
    again = ActivationPatching.from_npz(found.to_npz(tmp_path / "patching.npz"))
    assert torch.equal(again.effect, found.effect)
    assert again.metadata["axis"] == "head"
    assert list(found.arrays) == ["effect", "stderr", "values", "clean", "corrupt"]


def test_a_whole_stream_carries_the_whole_effect() -> None:
    model = model_of("base")
    clean, corrupt = images_of(model, 3, seed=1), images_of(model, 3, seed=2)
    found = activation_patching(model, clean, corrupt, "resid_post", LogitDiff(0, 1), axis="component")
    torch.testing.assert_close(found.normalised(), torch.ones(2, 1, dtype=torch.float64))


def test_no_total_effect_is_said_instead_of_divided_by() -> None:
    model = model_of("base")
    images = images_of(model, 3)
    with pytest.raises(PrismaError, match="runs that differ in the metric; found a total effect of 0"):
        activation_patching(model, images, images, "attn.z", LogitDiff(0, 1)).normalised()


GROUPS: dict[str, tuple[int | Sequence[Sequence[int]], list[list[int]]]] = {
    "three": (3, [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]),
    "chosen": ([[1, 9], [1, 2, 3]], [[1, 9], [1, 2, 3]]),
}


@pytest.mark.parametrize(("groups", "members"), GROUPS.values(), ids=GROUPS)
def test_groups_of_neurons(groups: int | Sequence[Sequence[int]], members: list[list[int]]) -> None:
    model = model_of("base")
    clean, corrupt = images_of(model, 2, seed=1), images_of(model, 2, seed=2)
    found = activation_patching(model, clean, corrupt, "mlp.post", LogitDiff(0, 1), axis="d_mlp", groups=groups)
    with torch.no_grad():
        _, acts = record(model, corrupt, "blocks.*.mlp.post")
        for layer in range(2):
            name = f"blocks.{layer}.mlp.post"
            for unit, group in enumerate(members):
                expected = LogitDiff(0, 1)(run(model, clean, {name: Set(acts[name]).at(d_mlp=group)}))
                torch.testing.assert_close(found.values[:, layer, unit], expected)


@pytest.mark.parametrize("groups", [0, 11, [[]], [[10]], [[-1]], [[0.5]], []])
def test_groups_that_do_not_fit(groups: Any) -> None:
    model = model_of("base")
    images = images_of(model)
    with pytest.raises(PrismaError, match=r"groups of d_mlp|each of groups to be a whole number; found 0\.5"):
        activation_patching(model, images, images, "mlp.post", LogitDiff(0, 1), axis="d_mlp", groups=groups)


SETS: dict[str, dict[str, dict[str, Any]]] = {
    "one head": {"blocks.1.attn.z": {"head": 2}},
    "two layers": {"blocks.0.attn.z": {"head": [0, 2], "token": 1}, "blocks.1.mlp_out": {"token": slice(2, 4)}},
    "all": {"blocks.*.mlp_out": {}, "embed": {"token": 3}},
    "readout": {"ln_final": {}},
    "nothing": {},
}


@pytest.mark.parametrize("into", ["clean", "corrupt"])
def test_sets_equal_runs_with_edits(into: str) -> None:
    model = model_of("base")
    clean, corrupt = images_of(model, 3, seed=1), images_of(model, 3, seed=2)
    target, donor = (clean, corrupt) if into == "clean" else (corrupt, clean)
    found = patch_sets(model, clean, corrupt, SETS, LogitDiff(0, 1), into=into, batch=2)
    assert found.metadata["sets"] == list(SETS)
    with torch.no_grad():
        _, acts = record(model, donor, "*")
        for column, cells in enumerate(SETS.values()):
            sites = {site: (at, name) for name, at in cells.items() for site in acts if fits(site, name)}
            edits = {site: Set(acts[site]).at(**at) for site, (at, _) in sites.items()}
            torch.testing.assert_close(found.values[:, column], LogitDiff(0, 1)(run(model, target, edits)))
    torch.testing.assert_close(found.effect, found.values.mean(0))
    panel = found.plot().axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == list(SETS)
    assert [label.get_text() for label in found.plot("values").axes[0].get_xticklabels()] == list(SETS)


def fits(site: str, name: str) -> bool:
    return site == name or (name == "blocks.*.mlp_out" and site.endswith(".mlp_out"))


def test_a_set_may_name_a_site_twice() -> None:
    model = model_of("base")
    clean, corrupt = images_of(model, 3, seed=1), images_of(model, 3, seed=2)
    twice = {
        "a": {"blocks.*.attn.z": {"head": 0}, "blocks.0.attn.hook_z": {"head": 1}, "blocks.0.attn.z": {"token": 2}}
    }
    found = patch_sets(model, clean, corrupt, twice, LogitDiff(0, 1))
    with torch.no_grad():
        first, second = record(model, corrupt, "blocks.*.attn.z")[1].values()
        edits = {
            "blocks.0.attn.z": [Set(first).at(head=[0, 1]), Set(first).at(token=2)],
            "blocks.1.attn.z": Set(second).at(head=0),
        }
        torch.testing.assert_close(found.values[:, 0], LogitDiff(0, 1)(run(model, clean, edits)))


def test_sets_that_do_not_fit() -> None:
    model = model_of("base")
    images = images_of(model)
    wrong: dict[str, dict[str, dict[str, dict[str, Any]]]] = {
        "expected head from 0 to 2 at this site; found 3": {"a": {"blocks.0.attn.z": {"head": 3}}},
        "found 'neuron'": {"a": {"blocks.0.attn.z": {"neuron": 3}}},
        "it has no axis 'batch'": {"a": {"blocks.0.attn.z": {"batch": 0}}},
        "no site of this model matches": {"a": {"blocks.2.attn.z": {}}},
        "sets of cells to patch; found none": {},
    }
    for sentence, sets in wrong.items():
        with pytest.raises(PrismaError, match=sentence):
            patch_sets(model, images, images, sets, LogitDiff(0, 1))


def test_a_small_change_of_a_large_metric_is_not_rounded_away() -> None:
    """A metric around 4096, where float32 has steps of 1/2048, changed by one step in every third pair."""
    clean = 4096 + torch.rand(300, generator=torch.Generator().manual_seed(0))
    step = torch.zeros(300)
    step[::3] = 2.0**-11
    values = torch.stack([clean, clean + step], dim=1)[:, None]
    found = ActivationPatching(
        metadata={"axis": "head", "into": "clean"}, values=values, clean=clean, corrupt=clean + 3 * step
    )
    torch.testing.assert_close(found.normalised(), torch.tensor([[0.0, 1 / 3]]), rtol=1e-5, atol=1e-7)
