from typing import Any

import pytest
import yaml

from prisma.errors import PrismaError
from prisma.publish.metadata import hub_fields, license_name, problems, to_yaml
from prisma.repository import DATASET

RESULT = {
    "task": {"type": "image-classification"},
    "dataset": {"name": "digits", "type": "digits", "split": "test"},
    "metrics": [{"type": "accuracy", "value": 0.9, "name": "test accuracy"}],
}
GOOD: dict[str, Any] = {
    "license": "mit",
    "library_name": "prisma",
    "pipeline_tag": "image-classification",
    "tags": ["mouse"],
    "datasets": ["mnist", "lab/set"],
    "base_model": "lab/base",
    "base_model_relation": "finetune",
    "language": "en",
    "co2_eq_emissions": {"emissions": 0.1, "source": "estimate"},
    "model-index": [{"name": "digits", "results": [RESULT]}],
}


def test_good_metadata_has_no_problem_and_is_written_as_it_is() -> None:
    assert problems(GOOD) == []
    assert yaml.safe_load(to_yaml(GOOD)) == GOOD


def other(key: str, value: Any) -> dict[str, Any]:
    return {name: part for name, part in {**GOOD, key: value}.items() if part is not ...}


ERRORS = [
    ("license", 5, "expected license to be text; found 5"),
    ("license", "other", "expected license_name beside license: other"),
    ("tags", "mouse", "expected tags to be a list; found 'mouse'"),
    ("tags", ["a", 1], "expected each of tags to be text; found 1"),
    ("datasets", "mnist", "expected datasets to be a list; found 'mnist'"),
    ("datasets", ["a b"], "expected datasets to name repositories of the Hub: .* 'a b', which has a space"),
    ("base_model", ["lab/a--b"], "expected base_model to name .* which has '--'"),
    ("base_model", ..., "expected base_model beside base_model_relation; found none"),
    ("thumbnail", "x.png", "expected thumbnail to be an address"),
    ("co2_eq_emissions", "much", "expected emissions of co2_eq_emissions to be grams"),
    ("co2_eq_emissions", {"emissions": -1}, "a number of at least 0; found -1"),
    ("co2_eq_emissions", {"emissions": 1, "source": 2}, "expected source of co2_eq_emissions to be text"),
    ("model-index", {}, "expected model-index to be a list of models"),
    ("model-index", [{"results": [RESULT]}], "expected name of model-index to be text; found None"),
    ("model-index", [{"name": "x", "results": []}], "to be a list with an entry"),
    ("model-index", [{"name": "x", "results": [{**RESULT, "task": 1}]}], "task of model-index.* to have named fields"),
    ("model-index", [{"name": "x", "results": [{**RESULT, "dataset": {"type": "d"}}]}], "dataset.name of model-index"),
    ("model-index", [{"name": "x", "results": [{**RESULT, "metrics": []}]}], "expected metrics of model-index"),
    (
        "model-index",
        [{"name": "x", "results": [{**RESULT, "metrics": [{"type": "a", "value": float("nan")}]}]}],
        "metrics.value of .* to be a finite number; found nan",
    ),
]


@pytest.mark.parametrize(("key", "value", "words"), ERRORS)
def test_a_wrong_type_or_shape_is_an_error(key: str, value: Any, words: str) -> None:
    with pytest.raises(PrismaError, match=f"expected metadata that the Hub takes; .*{words}"):
        to_yaml(other(key, value))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("license", "my-own", f"a license that the Hub lists ({hub_fields()['date']}); found 'my-own'"),
        ("license", ..., "expected a license; found none"),
        ("pipeline_tag", "mind-reading", "expected a pipeline_tag that the Hub lists"),
        ("base_model_relation", "copy", "expected a base_model_relation that the Hub lists"),
        ("language", "english", "expected a code of ISO 639 as language; found 'english'"),
        ("colour", "red", "expected a field that the Hub documents; found 'colour'"),
        ("co2_eq_emissions", {"emissions": 1, "where": "x"}, "a field of co2_eq_emissions that the Hub documents"),
    ],
)
def test_an_unknown_name_is_a_warning(key: str, value: Any, words: str) -> None:
    (problem,) = problems(other(key, value))
    assert words in problem.words and not problem.is_error
    assert to_yaml(other(key, value))


@pytest.mark.parametrize("metadata", [None, [], "license: mit", 5])
def test_what_is_no_metadata(metadata: Any) -> None:
    (problem,) = problems(metadata)
    assert problem.is_error and "expected named fields" in problem.words


def test_a_licence_has_a_name() -> None:
    assert license_name("mit") == "MIT" and license_name("my-own") == "my-own"
    assert license_name("cc-by-4.0") == "Creative Commons Attribution 4.0"


def test_metadata_of_data_sets_have_fields_of_their_own() -> None:
    files = [{"split": "train", "path": "data/train.parquet"}]
    good = {
        "license": "mit",
        "pretty_name": "Rings",
        "size_categories": ["n<1K"],
        "task_categories": ["image-classification"],
    }
    good |= {"configs": [{"config_name": "default", "data_files": files}]}
    assert problems(good, DATASET) == []
    assert yaml.safe_load(to_yaml(good, DATASET)) == good
    assert {problem.words.split("; found")[0] for problem in problems(good)} == {
        "expected a field that the Hub documents"
    }
    for key, value, words, is_error in (
        ("size_categories", ["few"], "expected a size_categories that the Hub lists", False),
        ("task_categories", "image-classification", "expected task_categories to be a list", True),
        ("configs", {"config_name": "default"}, "expected configs to be a list of configurations", True),
        (
            "configs",
            [{"config_name": "default", "data_files": "x"}],
            "expected data_files of configs to be a list",
            True,
        ),
        (
            "configs",
            [{"config_name": "a", "data_files": [{"split": "a"}]}],
            "expected path of configs to be text",
            True,
        ),
        ("pipeline_tag", "image-classification", "expected a field that the Hub documents", False),
    ):
        found = problems({**good, key: value}, DATASET)
        assert [(words in problem.words, problem.is_error) for problem in found] == [(True, is_error)], key
