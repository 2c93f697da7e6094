"""Models for feature visualisation by their references."""

from pathlib import Path

import pytest
import timm
from timm.models import save_for_hf

from prisma.errors import PrismaError
from prisma.features.models import model_of
from prisma.loaded import Loaded
from prisma.pretrained.networks import Network


def test_what_prisma_reads_is_converted_and_other_networks_stay(tmp_path: Path) -> None:
    assert isinstance(model_of("mice/digits"), Loaded)
    module = timm.create_model("lcnet_035", num_classes=2)
    save_for_hf(module, str(tmp_path), safe_serialization=True)
    found = model_of(str(tmp_path))
    assert isinstance(found, Network) and type(found.model) is type(module)
    with pytest.raises(PrismaError, match="there is no mouse 'mice/digit' in this package; the nearest: mice/digits"):
        model_of("mice/digit")
