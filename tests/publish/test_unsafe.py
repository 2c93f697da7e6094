"""Files that can harm whoever opens them are told by their names."""

import pytest

from prisma.publish.unsafe import is_odd_name, unsafe_problem, why_unsafe


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pytorch_model.bin", "a pickle"),
        ("optimizer.pt", "a pickle"),
        ("a/b/rng_state.PTH", "a pickle"),
        ("last.ckpt", "a pickle"),
        ("x.pkl", "a pickle"),
        ("index.html", "a web page"),
        ("setup.exe", "a program"),
        ("lib/x.so.1.2", "a program"),
        ("modeling.py", "a program"),
        ("../up.json", "a name that may lead elsewhere"),
        ("a//b", "a name that may lead elsewhere"),
        ("photo\u202egnp.exe", "a name that may lead elsewhere"),
        ("C:\\x.json", "a name that may lead elsewhere"),
    ],
)
def test_an_unsafe_name(name: str, why: str) -> None:
    found = why_unsafe(name)
    assert found
    assert found.startswith(why)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "README.md", "curves/loss.svg", "bin", "a.bin/x.txt"]
)
def test_a_safe_name(name: str) -> None:
    assert why_unsafe(name) is None
    assert not is_odd_name(name)


def test_they_are_named_in_one_sentence() -> None:
    assert unsafe_problem(["config.json"]) is None
    assert unsafe_problem(["b.pt", "a.html"]) == (
        "expected only files that are safe to open; found a.html (a web page, which runs scripts), "
        "b.pt (a pickle, which runs code when it is opened)"
    )
    assert (unsafe_problem(f"{i:04d}.pt" for i in range(1000)) or "").endswith("and 995 more")
