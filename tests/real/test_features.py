"""Feature visualisation on real weights: a CNN sees what it was asked for, and a neuron of a DINOv2 is driven."""

from pathlib import Path

import pytest
import torch

import prisma
from prisma.data.transform import Transform
from prisma.features import MACO, Channel, Network, Pixels, natural_pictures, visualize
from prisma.features.models import model_of
from prisma.features.references import total_variation

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2] / "real"
SHAPE = (3, 224, 224)
TRANSFORM = Transform((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), shortest=256)


def test_a_cnn_classifies_its_daisy_and_its_espresso_as_such() -> None:
    read = model_of(str(ROOT / "efficientnet-lite0"))
    assert isinstance(read, Network) and read.transform == TRANSFORM
    network, first = read.model, [label.split(",")[0] for label in read.labels]
    classes = [first.index("daisy"), first.index("espresso")]
    pictures = natural_pictures(SHAPE)
    found = visualize(read, classes, MACO(pictures), steps=80)
    assert found.answer.tolist() == classes
    with torch.no_grad():
        probability = network(TRANSFORM.normalise(found.images)).softmax(-1)[[0, 1], classes]
    assert (probability > 0.9).all()
    free = visualize(read, classes, Pixels(lr=0.1), steps=20)
    assert (total_variation(found.images) < total_variation(free.images)).all()


def test_a_neuron_of_a_trained_vit_is_driven_further_than_by_pictures() -> None:
    loaded = prisma.load(ROOT / "dinov2-s14", image_size=112)
    assert loaded.transform is not None
    pictures = natural_pictures((3, 112, 112), crops=2)
    unit = Channel("blocks.8.mlp.post", 11)
    found = visualize(loaded, unit, MACO(), steps=40, data=loaded.transform.normalise(pictures), k=3)
    assert found.percentile.item() == 100 and found.images.shape == (1, 3, 112, 112)
