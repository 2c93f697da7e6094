"""Options of analyses are read by name and type, and wrong ones are refused."""

import pytest

from prisma import PrismaError
from prisma.study.catalog import ANALYSES
from prisma.study.options import OPTIONS, read_options


def test_every_option_of_every_analysis_is_in_the_table() -> None:
    assert {option for a in ANALYSES.values() for option in a.options} == set(OPTIONS)
    for a in ANALYSES.values():
        for name, default in a.options.items():
            assert default is None or type(default) is OPTIONS[name].kind


def test_text_becomes_values_and_defaults_are_kept() -> None:
    defaults = {"noise": 3.0, "samples": 10, "site": "resid_post", "tokens": False}
    assert read_options({}, defaults, "any") == defaults
    given = {"noise": "2", "samples": "3", "site": "mlp_out", "tokens": "Yes"}
    assert read_options(given, defaults, "any") == {"noise": 2.0, "samples": 3, "site": "mlp_out", "tokens": True}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("rollout", {"head": "mean"}, "expected an option of rollout; found 'head'; the nearest options: heads"),
        ("rollout", {"metric": "logit"}, "expected an option of rollout; found 'metric'"),
        ("rollout", {"residual": "half"}, "expected residual to be a number; found 'half'"),
        ("causal_tracing", {"samples": "2.5"}, "expected samples to be a whole number; found '2.5'"),
        ("logit_lens", {"tokens": "some"}, "expected tokens to be true or false; found 'some'"),
    ],
)
def test_wrong_options_are_refused(name: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        read_options(given, ANALYSES[name].options, name)
