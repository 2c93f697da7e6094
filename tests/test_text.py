"""The text tower: equal to a slow twin, no idle part, blind to later tokens, read and edited by the same names."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import prisma
from prisma import PrismaError, Set, Zero
from prisma.config import TextConfig
from prisma.inventory import site_names
from prisma.sites import axes_of
from prisma.text import TextTower
from tests.twin import TextTwin
from tests.variants import TEXTS, ids_of, largest, tower_of

CAUSAL = [name for name, fields in TEXTS.items() if fields.get("causal", True)]


@pytest.mark.parametrize("variant", TEXTS)
def test_equals_the_slow_twin(variant: str) -> None:
    tower = tower_of(variant)
    ids = ids_of(tower)
    with torch.no_grad():
        assert largest(tower(ids) - TextTwin(tower.config, tower.state_dict())(ids)) <= 1e-10


@pytest.mark.parametrize("variant", TEXTS)
def test_every_site_is_alive(variant: str) -> None:
    tower = tower_of(variant)
    ids = ids_of(tower)
    with torch.no_grad():
        logits, acts = prisma.record(tower, ids, "*")
        assert torch.equal(logits, acts["logits"])
        assert tuple(acts) == site_names(tower.config)
        for site, x in acts.items():
            assert x.ndim == len(axes_of(site)), site
            noisy = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
            assert largest(prisma.run(tower, ids, {site: Set(noisy)}) - logits) > 1e-6, f"{site} is idle"


@pytest.mark.parametrize("variant", TEXTS)
def test_every_parameter_is_alive(variant: str) -> None:
    """Noise on any parameter changes the output, but for shifts shared by all keys, which softmax does not see."""
    tower = tower_of(variant)
    ids = ids_of(tower)
    with torch.no_grad():
        before = tower(ids)
        for name, parameter in tower.named_parameters():
            kept = parameter.clone()
            parameter += 0.5 * torch.randn_like(parameter)
            change = largest(tower(ids) - before)
            parameter.copy_(kept)
            shared = name.endswith("k_norm.bias")
            assert change < 1e-10 if shared else change > 1e-6, f"{name} changes the output by {change}"


def test_the_variants_cover_the_choices() -> None:
    configs = [tower_of(variant).config for variant in TEXTS]
    for name in ("pool", "norm", "norm_kind"):
        assert {getattr(config, name) for config in configs} == set(TextConfig.CHOICES[name])


@pytest.mark.parametrize("materialised", [False, True])
@pytest.mark.parametrize("variant", CAUSAL)
def test_a_causal_token_never_depends_on_later_ones(variant: str, materialised: bool) -> None:
    tower = tower_of(variant)
    ids = ids_of(tower)
    read = ["blocks.*.resid_post", *(["blocks.*.attn.pattern"] if materialised else [])]
    with torch.no_grad():
        _, acts = prisma.record(tower, ids, read)
        for place in range(1, tower.config.context):
            changed = ids.clone()
            changed[:, place:] = (changed[:, place:] + 1) % tower.config.vocabulary
            _, other = prisma.record(tower, changed, read)
            for layer in range(tower.config.n_layers):
                difference = (acts.stack("resid_post") - other.stack("resid_post"))[layer]
                assert largest(difference[:, :place]) <= 1e-13
                assert difference[:, place:].abs().amax((0, 2)).min() > 1e-6
    if materialised:
        assert not acts["blocks.0.attn.pattern"].triu(1).any()


def test_without_the_mask_every_token_sees_every_other() -> None:
    tower = tower_of("not_causal")
    ids = ids_of(tower)
    changed = ids.clone()
    changed[:, -1] = 7
    with torch.no_grad():
        acts, other = (prisma.record(tower, x, "blocks.0.resid_post")[1]["blocks.0.resid_post"] for x in (ids, changed))
    assert (acts - other).abs().amax((0, 2)).min() > 1e-6


SPEAKERS: dict[str, tuple[list[int], int]] = {
    "base": ([3, 8, 1, 8, 2], 1),  # the first of the largest ids
    "end": ([3, 8, 6, 1, 6], 2),  # the first `end`
    "first": ([3, 8, 6, 1, 6], 0),
    "last": ([3, 8, 6, 1, 6], 4),
}


@pytest.mark.parametrize("variant", SPEAKERS)
def test_which_token_speaks_for_the_prompt(variant: str) -> None:
    tower = tower_of(variant)
    ids, place = SPEAKERS[variant]
    _, acts = prisma.record(tower, torch.tensor([ids]), ["pooled", "ln_final"])
    assert torch.equal(acts["pooled"][0], acts["ln_final"][0, place])


def test_edits_do_what_they_do_in_a_vit() -> None:
    tower = tower_of("base")
    ids = ids_of(tower)
    with torch.no_grad():
        logits, acts = prisma.record(tower, ids, ["blocks.1.attn.z", "blocks.1.resid_post"])
        edited, seen = prisma.record(tower, ids, "blocks.1.*", {"blocks.1.attn.hook_z": Zero().at(head=2, token=1)})
        assert not seen["blocks.1.attn.z"][:, 1, 2].any()
        torch.testing.assert_close(seen["blocks.1.attn.z"][:, :, :2], acts["blocks.1.attn.z"][:, :, :2])
        torch.testing.assert_close(tower.readout(seen["blocks.1.resid_post"], ids), edited)
        assert torch.equal(prisma.run(tower, ids, {"blocks.1.resid_post": Set(acts["blocks.1.resid_post"])}), logits)
        assert torch.equal(prisma.run(tower, ids), logits)


@pytest.mark.parametrize("site", ["embed", "blocks.0.attn.z", "blocks.1.resid_post", "ln_final", "pooled", "logits"])
def test_a_run_can_stop_after_the_last_site(site: str) -> None:
    tower = tower_of("base")
    ids = ids_of(tower)
    with torch.no_grad():
        logits, acts = prisma.record(tower, ids, site)
        output, stopped = prisma.record(tower, ids, site, stop=True)
    assert torch.equal(stopped[site], acts[site])
    if site in ("ln_final", "pooled", "logits"):
        assert torch.equal(output, logits)


def test_a_sweep_over_prompts_equals_one_forward_per_head() -> None:
    tower = tower_of("base")
    clean, corrupt = ids_of(tower), ids_of(tower, seed=5)

    def metric(logits: Tensor) -> Tensor:
        return logits[:, 0] - logits[:, 1]

    with torch.no_grad():
        _, acts = prisma.record(tower, corrupt, "blocks.*.attn.z")
        expected = [
            [
                metric(prisma.run(tower, clean, {site: Set(acts[site]).at(head=head)})).mean()
                for head in range(tower.config.n_heads)
            ]
            for site in acts
        ]
    found = prisma.sweep(tower, clean, corrupt, "attn.z", metric, batch=4)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_three_functions_make_the_forward() -> None:
    tower = tower_of("base")
    ids = ids_of(tower)
    middle = tower.encode(tower.embed(ids), stop=1)
    torch.testing.assert_close(tower.readout(tower.encode(middle, start=1), ids), tower(ids), rtol=0, atol=0)


def test_compiled_equals_eager() -> None:
    torch.compiler.reset()
    tower = tower_of("base", n_layers=1)
    ids, edit = ids_of(tower), {"blocks.0.attn.z": Zero().at(head=1)}
    compiled: Any = torch.compile(tower, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(prisma.run(compiled, ids, edit), prisma.run(tower, ids, edit))


def test_new_weights_are_finite_and_follow_the_seed() -> None:
    towers = []
    for _ in range(2):
        torch.manual_seed(3)
        towers.append(TextTower(tower_of("base").config).state_dict())
    torch.testing.assert_close(towers[0], towers[1], rtol=0, atol=0)
    assert all(x.isfinite().all() for x in towers[0].values())


WRONG: dict[str, tuple[Callable[[], Tensor], str]] = {
    "too long": (lambda: torch.zeros(2, 6, dtype=torch.long), r"\[batch, 5\]; found \[2, 6\] of torch.int64"),
    "one prompt": (lambda: torch.zeros(5, dtype=torch.long), r"found \[5\]"),
    "floats": (lambda: torch.zeros(2, 5), "found .* of torch.float32"),
    "truth values": (lambda: torch.zeros(2, 5, dtype=torch.bool), "found .* of torch.bool"),
    "too large an id": (lambda: torch.tensor([[0, 1, 9, 2, 3]]), "ids from 0 to 8; found 9"),
    "a negative id": (lambda: torch.tensor([[0, 1, -1, 2, 3]]), "ids from 0 to 8; found -1"),
}


@pytest.mark.parametrize(("ids", "sentence"), WRONG.values(), ids=WRONG)
def test_ids_that_do_not_fit_are_refused(ids: Callable[[], Tensor], sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence) as error:
        tower_of("base")(ids())
    assert "\n" not in str(error.value)
