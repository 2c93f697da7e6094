"""Plans of a few bytes: publishing them needs no run."""

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from huggingface_hub import HfApi

from prisma import ViT, ViTConfig
from prisma.checkpoint import Checkpoint
from prisma.publish.calls import Calls
from prisma.publish.card import Record
from prisma.publish.commits import Commit, File
from prisma.publish.hugging_face_hub import CHAIN, HuggingFaceHub
from prisma.publish.journal import Journal
from prisma.publish.manifest import Entry
from prisma.publish.plan import Plan, Step
from prisma.run_folder import revision_of

REPO = "lab/tiny"
CARD = b"---\nlicense: mit\n---\n# A mouse of seed %d\n"
CONFIG = b'{"seed": %d}\n'
MODEL = ViTConfig(image_size=4, patch_size=4, channels=1, n_layers=1, d_model=4, n_heads=1, d_mlp=4, n_classes=2)


def small_plan(n: int = 2, *, seed: int = 0, size: int = 2000, folder: Path | None = None) -> Plan:
    """`n` checkpoints of `size` random bytes, and `main`. Another seed is another run.

    Args:
        folder: where the checkpoints are written first; None keeps them in memory.
    """
    if folder is not None:
        write_checkpoints(folder, n, size, seed)
        return plan_of(folder, seed)
    return _plan([(CONFIG % seed, weights) for weights in _weights(n, size, seed)], seed)


def write_checkpoints(folder: Path, n: int, size: int, seed: int = 0) -> None:
    """`n` checkpoints of `size` random bytes, each a folder of two files."""
    for i, data in enumerate(_weights(n, size, seed)):
        checkpoint = folder / revision_of(i)
        checkpoint.mkdir(parents=True)
        (checkpoint / "config.json").write_bytes(CONFIG % seed)
        (checkpoint / "model.safetensors").write_bytes(data)


def plan_of(folder: Path, seed: int = 0) -> Plan:
    """What the checkpoints of a folder are published as; every byte is hashed."""
    folders = sorted(folder.iterdir())
    return _plan([(path / "config.json", path / "model.safetensors") for path in folders], seed)


def _weights(n: int, size: int, seed: int) -> Iterator[bytes]:
    generator = random.Random(seed)
    return (generator.randbytes(size) for _ in range(n))


def _plan(sources: Sequence[tuple[bytes | Path, bytes | Path]], seed: int) -> Plan:
    steps = []
    for i, (config, weights) in enumerate(sources):
        commit = Commit((File.of("config.json", config), File.of("model.safetensors", weights)))
        record = commit.file("model.safetensors").record
        entry = Entry(i, revision_of(i), "", record.sha256, record.size, ((0.0,),), commit.records)
        steps.append(Step(revision_of(i), f"Step {i} of run run-{seed}", commit, entry))
    card, picture = CARD % seed, b"\x89PNG" + random.Random(f"picture {seed}").randbytes(50)
    last = steps[-1].commit.files
    record = Record(REPO, {}, {}, (), tuple(step.entry for step in steps))
    final = Checkpoint(ViT(MODEL), (), None, {})  # from both, a card would be rendered if a checkpoint were yanked
    return Plan(f"run-{seed}", tuple(steps), (*last, File.of("curves/loss.png", picture)), record, final, card.decode())


def remote_hub(folder: Path, repo: str = REPO, **calls: object) -> HuggingFaceHub:
    """The Hub, as a publisher with a journal in this folder sees it; it never waits."""
    return HuggingFaceHub(repo, Journal.of(folder, repo), Calls(**{"sleep": lambda _: None, **calls}))  # type: ignore[arg-type]


def expect_served(plan: Plan, repo: str = REPO, *, extra: frozenset[str] | set[str] = frozenset()) -> None:
    """Every label serves what the plan wants, byte by byte, and there are no others.

    Args:
        extra: branches that are no labels.
    """
    api = HfApi()
    heads = {branch.name: branch.target_commit for branch in api.list_repo_refs(repo).branches}
    assert heads.keys() == {"main", CHAIN, *extra, *(step.label for step in plan.steps)}
    main = plan.main({step.label: heads[step.label] for step in plan.steps})
    wanted = {"main": main, **{step.label: step.commit for step in plan.steps}}
    for label, commit in wanted.items():
        names = set(api.list_repo_files(repo, revision=label)) - {".gitattributes"}
        assert names == {file.name for file in commit.files}
        for file in commit.files:
            data = Path(api.hf_hub_download(repo, file.name, revision=heads[label])).read_bytes()
            assert File.of(file.name, data).record == file.record, (label, file.name)
    chain = [commit.commit_id for commit in api.list_repo_commits(repo, revision=CHAIN)]
    trees = [sorted((row.path, row.blob_id) for row in api.list_repo_tree(repo, revision=commit)) for commit in chain]
    assert all(a != b for a, b in pairwise(trees)), "an empty commit"
