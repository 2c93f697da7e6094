"""What is offered when a name is unknown."""

from prisma.errors import PrismaError, nearest


def test_the_nearest_names_come_first() -> None:
    assert nearest("attn.Z", ["attn.q", "mlp.post", "attn.z", "embed"], n=2) == "attn.z, attn.q"


def test_something_is_always_offered() -> None:
    assert nearest("xyz", ["embed"]) == "embed"
    assert nearest("xyz", []) == "none"


def test_it_is_a_value_error() -> None:
    assert issubclass(PrismaError, ValueError)
