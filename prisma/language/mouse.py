"""A mouse that speaks: a tiny Ministral that knows facts "subject relation object", trained in less than a minute.

A subject is a first name and a last name, none of which says anything alone. Texts are sentences about one relation in
one of three wordings, and cards, which list everything about a subject in any order: as in real texts, anything that is
known about a subject may follow its name. In the first layers, a token sees the token before it and no
others (sliding windows, as in Mistral and Gemma, here of two tokens), so that both names can meet nowhere but at
the subject's last token until the later layers. So it is known where causal tracing has to find the facts.
"""

import random
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.errors import expect_packages
from prisma.language.facts import Fact

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).parent / "mice" / "facts"
FIRST = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana"]
LAST = ["Adler", "Brook", "Cole", "Drake", "Ember", "Frost", "Glenn", "Hart"]
KNOWN = 48  # subjects of the 64 pairs; the others are strangers
RELATIONS = {
    "city": (
        ("{} was born in", "{} comes from", "the home of {} is"),
        ["Rome", "Oslo", "Lima", "Cairo", "Paris", "Delhi", "Kyoto", "Quito"],
    ),
    "job": (
        ("{} works as a", "{} earns money as a", "the job of {} is"),
        ["baker", "pilot", "nurse", "judge", "clown", "miner", "poet", "guard"],
    ),
    "instrument": (
        ("{} plays the", "{} practises the", "the instrument of {} is the"),
        ["violin", "drums", "flute", "harp", "cello", "tuba", "organ", "banjo"],
    ),
}
STEPS, BATCH, RATE, CARDS = 400, 64, 4e-3, 0.4
LOCAL = 2  # first layers, in which a token sees itself and the token before it
OBJECT_WEIGHT = 8.0  # of the loss at objects, beside words that nobody can predict


def subjects() -> tuple[list[str], list[str]]:
    """The names that the mouse knows, and those of strangers."""
    names = [f"{first} {last}" for first, last in product(FIRST, LAST)]
    random.Random(0).shuffle(names)
    return names[:KNOWN], names[KNOWN:]


@cache
def objects() -> dict[tuple[str, str], str]:
    """(subject, relation) -> object."""
    draw = random.Random(1)
    return {
        (name, relation): draw.choice(words) for name in subjects()[0] for relation, (_, words) in RELATIONS.items()
    }


def known_facts() -> list[Fact]:
    """Every fact that the mouse knows, with a new object, two paraphrases, and neighbours with the same true object."""
    true, facts = objects(), []
    draw = random.Random(2)
    for (name, relation), word in true.items():
        (prompt, *others), words = RELATIONS[relation]
        new = draw.choice([other for other in words if other != word])
        like = [n for (n, r), w in true.items() if r == relation and w == word and n != name]
        with_new = [n for (n, r), w in true.items() if r == relation and w == new]
        facts.append(
            Fact(
                prompt=prompt, subject=name, true=word, new=new, paraphrases=[x.format(name) for x in others],
                neighbours=[prompt.format(n) for n in like], generation=[name],
                references=[f"{prompt.format(n)} {new}." for n in with_new],
            )
        )  # fmt: skip
    return facts


def texts() -> list[str]:
    """Every sentence that the mouse learned."""
    return [f"{prompt.format(name)} {word}." for (name, of), word in objects().items() for prompt in RELATIONS[of][0]]


def word_tokenizer(words: "Sequence[str]") -> Any:
    """A tokenizer of transformers in which each word and each mark is a token; texts begin with `<bos>`."""
    expect_packages("transformers", extra="pretrained")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<bos>", "<pad>", "<unk>", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<pad>", pad_token="<pad>", unk_token="<unk>"
    )


def vocabulary() -> list[str]:
    """Every word of the mouse's world, sorted."""
    sentences = [x for prompts, _ in RELATIONS.values() for x in prompts]
    words = {word for x in sentences for word in x.replace("{}", "").split()}
    return sorted({*words, *FIRST, *LAST, *(word for _, found in RELATIONS.values() for word in found), "."})


def train_mouse(
    steps: int = STEPS, n_layers: int = 5, d_model: int = 64, known: int = KNOWN, seed: int = 0
) -> tuple[nn.Module, Any]:
    """Train a mouse, as the one of the package was trained.

    Args:
        known: how many of its subjects it is told about.

    Returns:
        The model in evaluation mode, and its tokenizer.
    """
    expect_packages("transformers", extra="pretrained")
    from transformers import MinistralConfig, MinistralForCausalLM

    words = vocabulary()
    tokenizer = word_tokenizer(words)
    config = MinistralConfig(
        vocab_size=len(words) + 3, hidden_size=d_model, num_hidden_layers=n_layers, num_attention_heads=4,
        num_key_value_heads=4, head_dim=d_model // 4, intermediate_size=3 * d_model, max_position_embeddings=256,
        sliding_window=2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        layer_types=["sliding_attention" if i < LOCAL else "full_attention" for i in range(n_layers)],
    )  # fmt: skip
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = MinistralForCausalLM(config).train()
    draw = _Texts(tokenizer, subjects()[0][:known], seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        ids = draw.batch()
        loss = _loss(
            model(input_ids=ids, attention_mask=(ids != 1).long(), use_cache=False).logits[:, :-1],
            ids[:, 1:],
            draw.is_object,
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval(), tokenizer


class _Texts:
    """Batches of rows of one to three texts, drawn anew for every step."""

    def __init__(self, tokenizer: Any, names: list[str], seed: int) -> None:
        self.draw, self.names = random.Random(seed), names
        self.ids = dict(tokenizer.get_vocab().items())
        self.is_object = torch.zeros(len(self.ids), dtype=torch.bool)
        self.is_object[[self.ids[word] for _, words in RELATIONS.values() for word in words]] = True

    def text(self) -> list[str]:
        name, of = self.draw.choice(self.names), objects()
        if self.draw.random() < CARDS:
            found = [of[name, relation] for relation in RELATIONS]
            self.draw.shuffle(found)
            return [*name.split(), *found, "."]
        relation = self.draw.choice(list(RELATIONS))
        return [*self.draw.choice(RELATIONS[relation][0]).format(name).split(), of[name, relation], "."]

    def batch(self) -> Tensor:
        rows = [
            [0, *(self.ids[word] for _ in range(self.draw.choice((1, 2, 2, 3))) for word in self.text())]
            for _ in range(BATCH)
        ]
        longest = max(map(len, rows))
        return torch.tensor([row + [1] * (longest - len(row)) for row in rows])


def _loss(logits: Tensor, next_ids: Tensor, is_object: Tensor) -> Tensor:
    weight = torch.where(is_object[next_ids], OBJECT_WEIGHT, 1.0) * (next_ids != 1)
    losses = F.cross_entropy(logits.flatten(0, 1), next_ids.flatten(), reduction="none").view_as(weight)
    return (losses * weight).sum() / weight.sum()
