"""Every architecture that trains has a card, and what its files may hold cannot break out of it."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from prisma.checkpoint import Checkpoint, read_checkpoint
from prisma.describe import describe
from prisma.errors import PrismaError
from prisma.publish.card import Record, render
from prisma.publish.manifest import Entry
from prisma.publish.metadata import problems
from prisma.run_folder import read_metrics
from prisma.vit import ViT
from tests.test_describe import configs
from tests.variants import VARIANTS, config_of

MANY = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module")
def record(finished_run: Path) -> Record:
    recipe, results = (json.loads((finished_run / f"{name}.json").read_text()) for name in ("recipe", "results"))
    entries = [Entry(step, f"step-{step:06d}", "c" * 40, f"{step}" * 64, 9, ((0.5,),)) for step in (0, 1, 2, 4, 6)]
    return Record("lab/tiny", recipe, results, read_metrics(finished_run / "metrics.jsonl"), entries)


@pytest.fixture(scope="module")
def final(finished_run: Path) -> Checkpoint:
    return read_checkpoint(finished_run)


def of_form(final: Checkpoint, model: ViT) -> Checkpoint:
    return dataclasses.replace(final, model=model, labels=tuple(map(str, range(model.config.n_classes))))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_form_of_the_model_has_a_card(record: Record, final: Checkpoint, variant: str) -> None:
    config = config_of(variant)
    text = render(record, of_form(final, ViT(config)))
    for row in describe(config):
        assert f"| {row.name} | " in text
    kind = "video-classification" if config.frames > 1 else "image-classification"
    data = ModelCard(text).data
    assert data.pipeline_tag == (kind if config.n_classes else "image-feature-extraction")
    assert problems(data.to_dict()) == []
    assert ("acts[" in text) == bool(config.n_layers)


def test_each_kind_is_called_by_its_name(record: Record, final: Checkpoint) -> None:
    def card(variant: str) -> str:
        return render(record, of_form(final, ViT(config_of(variant))))

    assert "| Norms | LayerNorm on the output of each branch, after the last layer; epsilon" in card("norm_res_post")
    assert "| Norms | RMSNorm on the embedding" not in card("rms") and "| Norms | RMSNorm before" in card("rms")
    assert "| Read out from | the class token and the distillation token |" in card("pool_distilled")
    assert "| MLP | none: attention only |" in card("attention_only")
    assert "From 2-channel videos of 4 frames of 4 x 4 pixels it tells 5 classes apart:" in card("video")
    assert "it computes 24 features." in card("no_head_class_mean")


@settings(max_examples=15, deadline=None)
@given(config=configs())
def test_every_valid_architecture_has_a_card(record: Record, final: Checkpoint, config: Any) -> None:
    assert f"| Parameters | {sum(p.numel() for p in ViT(config).parameters()):,} |" in render(
        record, of_form(final, ViT(config))
    )


NASTY = [
    "<script>alert(1)</script>", "<b>", "<!-- prose -->", "<!-- /prose -->", "&lt;b&gt;", "**x**", "_x_", "~~x~~", "`",
    "```", "``x``", "[y](http://z)", "![y](z.png)", "[y]: http://z", "<http://z.org>", "http://z.org", "HTTPS://Z.ORG",
    "www.z.org", "z.org", "user@host.org", "@user", "#123", "lab/x#12", "GH-12", "mailto:a@b.c", "f93c8099fcfa5d71997",
    "\n# Heading", "\n---\n", "Title\n===", "- item", "1. item", "+ item", "> quote", "| a | b |\n|---|---|", "\\|",
    "\\", "|", "$x$", "$$x$$", "\\(x\\)", ":smile:", "\u202egnp.exe", "\u2066x\u2069", "\x00\x1b[31m", "\ud800",
    "{{ 1 + 1 }}", "{% raw %}", "}, note = {x", "%", "---\nlicense: gpl\n---", "license: gpl", "!!python/object:os.x",
    "&a *a", "null", "true", "1e5", "'", '"', "\t", "    code", "x" * 5000, "\u0301" * 50, "a\u2028b", "\ufeff",
]  # fmt: skip
hostile = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=12)), min_size=1, max_size=4).map(
    lambda parts: " ".join([*parts, "x"])  # something to see
)
TEXTS: Mapping[str, Callable[[Any], tuple[Any, str]]] = {
    "task": lambda facts: (facts[0]["task"], "name"),
    "source": lambda facts: (facts[0]["task"], "source"),
    "hash": lambda facts: (facts[0]["task"], "sha256"),
    "command": lambda facts: (facts[0], "command"),
    "run": lambda facts: (facts[0], "run"),
    "license": lambda facts: (facts[0], "license"),
    "wandb": lambda facts: (facts[0], "wandb"),
    "words": lambda facts: (facts[0]["data_order"], "words"),
    "platform": lambda facts: (facts[0]["environment"], "platform"),
    "device": lambda facts: (facts[0]["environment"], "device"),
    "version": lambda facts: (facts[0]["environment"], "prisma"),
    "commit": lambda facts: (facts[0]["git"], "commit"),
    "setting": lambda facts: (facts[0]["training"], "clip"),
    "optimizer": lambda facts: (facts[0]["optimizer"], "name"),
    "made with": lambda facts: (facts[1], "command"),
    "result": lambda facts: (facts[1]["results"][2], "name"),
    "split": lambda facts: (facts[1]["results"][0], "split"),
}
NAMES: Mapping[str, Callable[[Any], Any]] = {
    "environment": lambda facts: facts[0]["environment"],
    "training": lambda facts: facts[0]["training"],
    "optimizer": lambda facts: facts[0]["optimizer"],
    "images": lambda facts: facts[0]["task"]["images"],
    "seeds": lambda facts: facts[1]["seeds"],
}
LINKED = re.compile(r"://|www\.|@\w|#\d|\w\.[a-z]{2}|GH-\d|\$|\\\\\(|\b[0-9a-f]{40}\b", re.IGNORECASE)
"""What a renderer makes a link or a formula of, in text that is not code."""


@cache
def parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def tokens(text: str) -> list[Token]:
    return [token for block in parser().parse(text) for token in (block, *(block.children or ()))]


def structure(text: str) -> Counter[str]:
    """How often each element is in a card; code and text aside."""
    free = {"text", "code_inline", "softbreak", "inline"}
    return Counter(f"{token.type} {token.tag}" for token in tokens(text) if token.type not in free)


def poisoned(record: Record, texts: Mapping[str, str], names: Mapping[str, str]) -> Record:
    recipe, results = json.loads(json.dumps([record.recipe, record.results]))
    for key, value in texts.items():
        place, field = TEXTS[key]((recipe, results))
        place[field] = value
    for key, name in names.items():
        NAMES[key]((recipe, results))[name] = 1
    return dataclasses.replace(record, recipe=recipe, results=results)


@MANY
@given(
    texts=st.dictionaries(st.sampled_from(sorted(TEXTS)), hostile, max_size=4),
    names=st.dictionaries(st.sampled_from(sorted(NAMES)), hostile, max_size=2),
    labels=st.lists(hostile, min_size=10, max_size=10),
)
def test_text_of_strangers_stays_text(
    record: Record, final: Checkpoint, texts: dict[str, str], names: dict[str, str], labels: list[str]
) -> None:
    words = {key: "cpu" if key == "device" else "mit" if key == "license" else "word" for key in texts}
    if "device" in texts:
        words["device"] = "another"
    honest = render(poisoned(record, words, dict.fromkeys(names, "word")), final)
    text = render(poisoned(record, texts, names), dataclasses.replace(final, labels=tuple(labels)))
    assert structure(ModelCard(text).text) == structure(ModelCard(honest).text)
    for token in tokens(ModelCard(text).text):
        assert token.type != "text" or not LINKED.search(token.content), token.content
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]", text)
    assert text.encode() and len(text) < 60_000
    data, plain = ModelCard(text).data.to_dict(), ModelCard(honest).data.to_dict()
    assert data.keys() == plain.keys() and data["tags"] == plain["tags"]
    assert [problem for problem in problems(data) if problem.is_error] == []
    entry = text.rsplit("```bibtex\n", 1)[1].removesuffix("\n```\n")
    assert entry.count("{") == entry.count("}") == 4 and len(entry.splitlines()) == 5


@pytest.mark.parametrize("word", NASTY)
def test_each_nasty_word_as_a_class_and_as_a_task(record: Record, final: Checkpoint, word: str) -> None:
    if not word.strip():
        return
    labels = (word, *final.labels[1:])
    text = render(poisoned(record, {"source": word, "task": word}, {}), dataclasses.replace(final, labels=labels))
    assert structure(ModelCard(text).text) == structure(ModelCard(render(record, final)).text)
    assert not any(token.type == "text" and LINKED.search(token.content) for token in tokens(ModelCard(text).text))


def test_a_card_stays_short(record: Record, final: Checkpoint) -> None:
    text = render(record, dataclasses.replace(final, labels=("a" * 1_000_000, *map(str, range(100_000)))))
    assert len(text) < 20_000 and "and 99,901 more." in text


PLACES = st.lists(st.integers(0, 30), min_size=1, max_size=4)
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([10**400, -1, 0, 2**60]), st.floats(), st.text(max_size=5),
    st.just([]), st.just({}), st.just([1]), st.just({"a": None}), st.just([[]]),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(file=st.sampled_from(["recipe", "results", "metrics"]), path=PLACES, junk=JUNK)
def test_any_wrong_value_is_one_sentence_that_names_it(
    record: Record, final: Checkpoint, file: str, path: list[int], junk: Any
) -> None:
    content = {"top": json.loads(json.dumps(getattr(record, file)))}
    place: Any = content
    key: Any = "top"
    for index in [0, *path]:
        inside = place[key]
        if not isinstance(inside, dict | list) or not inside:
            break
        place, key = inside, list(inside)[index % len(inside)] if isinstance(inside, dict) else index % len(inside)
    place[key] = junk
    try:
        render(dataclasses.replace(record, **{file: content["top"]}), final)
    except PrismaError as error:
        words = str(error)
        assert f"{file}.json" in words and "\n" not in words and "object of type" not in words
        assert place is content or str(key) in words
