"""Entries round trip, and a fingerprint tells weights apart."""

import json
import random
from dataclasses import replace

import pytest
import torch

from prisma import ViT, ViTConfig
from prisma.checkpoint import Checkpoint
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.publish.commits import File
from prisma.publish.manifest import TOLERANCE, Entry, Manifest, Yanked, agrees, fingerprint
from prisma.run_folder import revision_of

CONFIG = ViTConfig(image_size=8, patch_size=4, channels=1, n_layers=1, d_model=8, n_heads=2, d_mlp=8, n_classes=20)
TRANSFORM = Transform(size=(8, 8), mean=(0.3,), std=(0.4,))
IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def checkpoint(seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    return Checkpoint(ViT(CONFIG).eval(), (), TRANSFORM.to_dict(), {})


def test_a_fingerprint_is_the_logits_of_the_first_images_and_classes() -> None:
    logits = checkpoint().model(TRANSFORM.normalise(IMAGES)).detach()
    found = torch.tensor(fingerprint(checkpoint(), IMAGES))
    torch.testing.assert_close(found, logits[:4, :16], rtol=1e-4, atol=1e-5)


def test_it_has_six_significant_digits_and_does_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    prints = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        prints.append(fingerprint(checkpoint(), IMAGES))
    torch.set_num_threads(before)
    assert prints[0] == prints[1]
    assert all(value == float(f"{value:.6g}") for row in prints[0] for value in row)


def test_it_agrees_with_itself_up_to_the_tolerance_and_with_nothing_else() -> None:
    mine, other = fingerprint(checkpoint(), IMAGES), fingerprint(checkpoint(1), IMAGES)
    largest = max(abs(value) for row in mine for value in row)
    noise = random.Random(0)

    def shaken(by: float) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(v + by * largest * noise.choice((-1, 1)) for v in row) for row in mine)

    assert agrees(mine, mine)
    assert agrees(shaken(0.9 * TOLERANCE), mine)
    assert not agrees(shaken(1.1 * TOLERANCE), mine)
    assert not agrees(other, mine)
    assert not agrees(mine[:3], mine)
    assert not agrees(tuple(row[:15] for row in mine), mine)


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (4, 3, 8, 8), (4, 1, 9, 8), (4, 8, 8), (0,)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PrismaError, match=r"expected probe images \[n, 1, 8, 8\]"):
        fingerprint(checkpoint(), torch.zeros(shape))


def test_logits_that_are_not_finite_are_refused() -> None:
    broken = checkpoint()
    with torch.no_grad():
        next(iter(broken.model.parameters())).fill_(float("nan"))
    with pytest.raises(PrismaError, match="finite"):
        fingerprint(broken, IMAGES)


def manifest_of(*entries: Entry) -> Manifest:
    return Manifest("r1", tuple(entry.step for entry in entries), entries)


def test_a_manifest_round_trips() -> None:
    files = (File.of("config.json", b"{}").record, File.of("model.safetensors", b"xy").record)
    print_ = ((0.5, -1.0), (2.0, 0.0))
    entries = (Entry(step, revision_of(step), "c" * 40, "s" * 64, 9, print_, files) for step in (0, 128))
    yanked = Yanked(4, "step-000004", "yanked-step-000004", "d" * 40, "wrong data", "2026-01-02")
    manifest = replace(manifest_of(*entries), files=files, yanked=(yanked,), replaced_by="r2")
    assert Manifest.parse(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json())["checkpoints"][1]["revision"] == "step-000128"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b'{"checkpoints": []}', "expected format 2 in checkpoints.json; found None"),
        (b"\xff", "UTF-8"),
        (b"[]", "named fields"),
        (
            b'{"format": 2, "run": "a", "steps": [], "checkpoints": [{"step": 1}]}',
            "each Entry lacks the field revision",
        ),
        (b'{"format": 2, "run": "a", "steps": [], "checkpoints": [1]}', "expected checkpoints to be a list"),
    ],
)
def test_what_is_no_manifest_is_one_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        Manifest.parse(data)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"step": "0"}, "expected step to be a whole number; found '0'"),
        ({"extra": 1}, "an entry of checkpoints.json has an unknown field 'extra'"),
        ({"fingerprint": [["x"]]}, "expected fingerprint to be .* a number"),
        ({"fingerprint": [1]}, "expected fingerprint"),
    ],
)
def test_a_wrong_entry_is_one_sentence(change: dict[str, object], sentence: str) -> None:
    entry = json.loads(manifest_of(Entry(0, "step-000000", "c", "s", 9, ((0.5,),))).to_json())["checkpoints"][0]
    with pytest.raises(PrismaError, match=sentence):
        Entry.from_dict({**entry, **change})
    with pytest.raises(PrismaError, match=r"an entry of checkpoints.json lacks the field commit"):
        Entry.from_dict({key: value for key, value in entry.items() if key != "commit"})
