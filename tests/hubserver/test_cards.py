"""What the Hub says about a card."""

import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import BadRequestError

from tests.hubserver.cards import metadata, problems
from tests.hubserver.making import commit

GOOD = """---
license: mit
library_name: prisma
tags: [vit]
datasets: [lab/digits]
base_model: lab/other
model-index:
- name: mouse
  results:
  - task: {type: image-classification}
    dataset: {type: digits, name: Digits}
    metrics: [{type: accuracy, value: 0.9}]
co2_eq_emissions: {emissions: 1.5, source: estimate}
---
# A mouse
"""


def test_a_good_card_has_no_problems() -> None:
    assert problems(GOOD, "model") == ([], [])
    assert metadata(GOOD.encode())["license"] == "mit"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mit", "mine", '"license" must be one of'),
        ("license: mit", "license: other", '"license_name" is required'),
        ("tags: [vit]", "tags: vit", '"tags" must be an array'),
        ("tags: [vit]", "tags: [3]", '"tags[0]" must be a string'),
        ("library_name: prisma", "library_name: 3", '"library_name" must be a string'),
        ("lab/digits", "lab/a/b", '"datasets" with value "lab/a/b" is not valid'),
        ("lab/other", "lab/-x", '"base_model" with value "lab/-x" is not valid'),
        ("- name: mouse", "- title: mouse", '"model-index[0].name" is required'),
        ("{type: image-classification}", "{}", '"model-index[0].results[0].task.type" is required'),
        ("name: Digits", "title: Digits", '"model-index[0].results[0].dataset.name" is required'),
        (", value: 0.9", "", '"model-index[0].results[0].metrics[0].value" is required'),
        ("emissions: 1.5", "emissions: much", '"co2_eq_emissions.emissions" must be a number'),
        ("license: mit", "license: [", "Invalid yaml"),
    ],
)
def test_each_problem_is_named(old: str, new: str, message: str) -> None:
    errors, _ = problems(GOOD.replace(old, new), "model")
    assert len(errors) == 1
    assert errors[0].startswith(message)


def test_spaces_have_fields_of_their_own() -> None:
    space = "---\nsdk: gradio\ncolorFrom: red\nshort_description: A space\n---\n"
    assert problems(space, "space") == ([], [])
    changed = space.replace("gradio", "flask").replace("red", "mauve").replace("A space", "x" * 61)
    assert [error.split()[0] for error in problems(changed, "space")[0]] == [
        '"short_description"',
        '"colorFrom"',
        '"sdk"',
    ]
    assert problems("# no block", "model")[1] == ["empty or missing yaml metadata in repo card"]


def test_the_client_reports_them(api: HfApi) -> None:
    ModelCard(GOOD).validate()
    with pytest.raises(ValueError, match=r"license.* must be one of"):
        ModelCard(GOOD.replace("mit", "mine")).validate()
    with pytest.raises((BadRequestError, ValueError), match='"license" must be one of'):
        commit(api, {"README.md": GOOD.replace("mit", "mine").encode()})
    commit(api, {"README.md": GOOD.encode()})
    assert api.model_info("lab/mouse").card_data.license == "mit"
    assert api.model_info("lab/mouse").library_name == "prisma"
