"""What a sweep patches, and where in a block it starts. That the runs are right: test_activation_patching."""

import pytest

from prisma import PrismaError
from prisma.analysis.patching.sweeping import Units, attention_stream
from tests.variants import model_of, tower_of


def test_units_are_heads_or_tokens_unless_told() -> None:
    model = model_of("base")
    assert Units(model, "attn.hook_z", None, None).axis == "head"
    assert Units(model, "resid_mid", None, None).axis == "token"
    assert Units(model, "mlp.post", "d_mlp", None).axis == "d_mlp"
    with pytest.raises(PrismaError, match="whole site, which cannot be grouped; found groups=2"):
        Units(model, "attn_out", "component", 2)


def test_attention_reads_the_stream_after_time_in_divided_attention() -> None:
    assert attention_stream(model_of("base"), 1) == "blocks.1.resid_pre"
    assert attention_stream(model_of("divided"), 1) == "blocks.1.resid_time"
    assert attention_stream(tower_of("base"), 0) == "blocks.0.resid_pre"
