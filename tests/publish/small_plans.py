"""Plans of a few bytes: publishing them needs no run."""

import random
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
CONFIG = ViTConfig(image_size=4, patch_size=4, channels=1, n_layers=1, d_model=4, n_heads=1, d_mlp=4, n_classes=2)
CARD = b"---\nlicense: mit\n---\n# A mouse\n"


def small_plan(n: int = 2, *, seed: int = 0, size: int = 2000, folder: Path | None = None) -> Plan:
    """`n` checkpoints of `size` random bytes, and `main`. Another seed is another run.

    Args:
        folder: where the weights are written, as files of their own; None keeps them in memory.
    """
    generator, steps = random.Random(seed), []
    config = File.of("config.json", f'{{"seed": {seed}}}\n'.encode())
    for i in range(n):
        weights = File.of("model.safetensors", _source(generator.randbytes(size), folder, revision_of(i)))
        commit = Commit((config, weights))
        entry = Entry(i, revision_of(i), "", weights.sha256, weights.size, ((0.0,),), commit.records)
        steps.append(Step(revision_of(i), f"Step {i} of run run-{seed}", commit, entry))
    last = steps[-1].commit.file("model.safetensors")
    card = CARD + f"Seed {seed}.\n".encode()
    files = (config, last, File.of("curves/loss.png", b"\x89PNG" + generator.randbytes(50)))
    record = Record(REPO, {}, {}, (), tuple(step.entry for step in steps))
    final = Checkpoint(ViT(CONFIG), (), None, {})  # from both, a card would be rendered if a checkpoint were yanked
    return Plan(f"run-{seed}", tuple(steps), files, record, final, card.decode())


def _source(data: bytes, folder: Path | None, label: str) -> bytes | Path:
    if folder is None:
        return data
    path = folder / label / "model.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


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
