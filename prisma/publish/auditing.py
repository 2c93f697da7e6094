"""Audit what is published: does every label serve the weights that it states, and is what `main` says true?"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from prisma.bounds import JSON, NUMBERS
from prisma.errors import PrismaError, shown
from prisma.filesystem import given, sentences
from prisma.publish.artefacts.artefact_audit import ArtefactAudit, is_artefact
from prisma.publish.findings import Finding, gathered
from prisma.publish.folder_source import FolderSource
from prisma.publish.folder_source import named_like as named_like_in
from prisma.publish.hub_source import named_like as named_like_on_the_hub
from prisma.publish.hub_source import on_the_hub
from prisma.publish.layouts import step_name
from prisma.publish.mouse_audit import MouseAudit, is_ours
from prisma.publish.signing import ENDING, signature_problem, stated_key
from prisma.publish.sources import Source
from prisma.publish.suite_audit import Saved, SuiteAudit, saved_in
from prisma.reading import read_bytes
from prisma.repository import ARTEFACT, MAIN, MANIFEST, Published, kind_and_repo

MOST = int(NUMBERS["checkpoints"][1])
"""Labels of a repository, repositories of a suite, and findings: what is beyond is counted, and not looked at."""


@dataclass(frozen=True)
class Audit:
    """The outcome of an audit."""

    findings: tuple[Finding, ...]
    checkpoints: int  # how many labels, folders or repositories state a step
    has_manifest: bool  # whether Prisma published it, so that there was a manifest to compare with


def audit(
    repo: str | Sequence[str], hub: str | Path | None = None, deep: bool = False, *, key: str | Path | None = None
) -> list[Finding]:
    """The problems of what is published; none if every label serves the weights of its step, as far as can be told.

    Of a mouse that Prisma published, every file of every revision is compared with the manifest by its hash: on the
    Hub by the Hub's own listings, without a download of weights; in a folder hub all bytes are read. The manifest
    itself is compared with what does not come from it: schedule and run in `recipe.json`, step and run in the headers
    of the weights, results with metrics, the card with what its data renders to, the learning rates and the task's
    labels with the recipe, and on the Hub with the SHA-256 in the message of its commit. Half-replaced revisions and
    unknown labels and files are problems; checkpoints that the manifest says were yanked are none.

    Of any other repository with step revisions (`prisma.publish.layouts` has the table of names), the listings are
    compared with each other: equal weights at two steps or at a step and `main`, shards shared by steps, formats of
    other weights beside each other, missing shards, empty revisions, unsafe files, and steps missing between others.

    What cannot be found: an edit by somebody who rewrites everything that must agree. Whoever may write to the
    repository can train another model by the same recipe and publish it in the place of the first; or change numbers
    in `metrics.jsonl`, results, card, manifest and commit message together, which only `deep` sees, for the steps that
    have a checkpoint. A folder hub has no commit messages, so there an
    edited manifest is found only by the comparisons above. Free text, such as a command or an environment, is compared
    with nothing but the manifest and the card. Only a signature of the manifest, by a key that the writer of the
    repository does not have, shows such edits: see `key`.

    Of a data set, a tuned lens or a sparse coder, every file is compared with the manifest, the card with what its data
    renders to, and the files with what the manifest says about them; with `deep`, a data set with the task that it is
    of.

    Args:
        repo: OWNER/NAME, of a data set datasets/OWNER/NAME; several, for a suite with one repository per checkpoint; or
            OWNER/START*, which means all repositories whose names begin so.
        hub: a folder hub; None is the Hugging Face Hub.
        deep: read all bytes: download every revision, one at a time, into a temporary folder, hash it, and compare
            equal weights by value, fingerprints on the probe, the probe with the task, and, where this version of
            Prisma can build the task, loss and accuracy on the test split (of `main` also on the train split), and the
            loss on the batch of each checkpoint's step, with `metrics.jsonl`.
        key: the file of a public key, by which the signature of the manifest is verified; to have none is a problem
            then.

    Raises:
        PrismaError: no such hub or repository, the Hub refuses or does not answer.
    """
    return list(examine(repo, hub, deep, key=key).findings)


def examine(
    repo: str | Sequence[str], hub: str | Path | None = None, deep: bool = False, *, key: str | Path | None = None
) -> Audit:
    """The same as `audit`, and how much was looked at."""
    hub, key = (path if path is None else given(path) for path in (hub, key))
    repos = _expanded([repo] if isinstance(repo, str) else list(repo), hub)
    with ExitStack() as stack:
        sources = [stack.enter_context(_opened(name, hub)) for name in repos]
        if len(sources) == 1:
            return _audit_one(sources[0], deep, key)
        if key is None and all(step_name(name.partition("/")[2]) for name in repos):
            return _audit_suite(sources, deep)
        found = [_audit_one(source, deep, key) for source in sources]
        findings = (
            Finding(f"{source.repo}@{finding.revision}", finding.problem)
            for source, one in zip(sources, found, strict=True)
            for finding in one.findings
        )
        return Audit(_bounded(findings), sum(one.checkpoints for one in found), all(one.has_manifest for one in found))


def _expanded(names: list[str], hub: Path | None) -> list[str]:
    """The names of repositories, those for patterns found."""
    found = list[str]()
    for name in names:
        if not name.endswith("*"):
            found.append(name)
        elif more := named_like_in(hub, name) if hub is not None else named_like_on_the_hub(name):
            found += more
        else:
            raise PrismaError(f"expected repositories whose names begin as {shown(name)}; found none")
    if not 1 <= len(found) <= MOST:
        raise PrismaError(f"expected 1 to {MOST:,} repositories to audit; found {len(found):,}")
    return list(dict.fromkeys(found))


@contextmanager
def _opened(repo: str, hub: Path | None) -> Iterator[Source]:
    kind, repo = kind_and_repo(repo)
    if hub is None:
        with on_the_hub(repo, kind) as source:
            yield source
    else:
        mouse = Published(repo, hub, kind=kind)
        with sentences(hub):
            mouse.expect_labels()
            yield FolderSource(mouse)


def _audit_one(source: Source, deep: bool, key: Path | None) -> Audit:
    labels, too_many = _labels(source)
    if is_artefact(source, labels):
        artefact = ArtefactAudit(source, labels, deep)
        found = _bounded(chain(too_many, _signature_findings(source, labels, ARTEFACT, key), artefact.findings()))
        return Audit(found, 0, artefact.has_manifest)
    if is_ours(source, labels):
        steps, mouse = sum(step_name(label) is not None for label in labels), MouseAudit(source, labels, deep)
        signed = _signature_findings(source, labels, MANIFEST, key)
        return Audit(_bounded(chain(too_many, signed, mouse.findings())), steps, True)
    suite = SuiteAudit(saved_in(source, labels), deep, source.repo)
    signed = _signature_findings(source, labels, MANIFEST, key)
    return Audit(_bounded(chain(too_many, signed, suite.findings())), len(suite.steps), False)


def _signature_findings(
    source: Source, labels: Mapping[str, str], manifest: str, key: Path | None
) -> Iterator[Finding]:
    """What is wrong with the signature of a manifest. Without a key, one that is there need only be some signature."""
    yield from (Finding(MAIN, problem) for problem in gathered(_signature_problems(source, labels, manifest, key)))


def _signature_problems(source: Source, labels: Mapping[str, str], manifest: str, key: Path | None) -> Iterator[str]:
    commit = labels.get(MAIN)
    listing = source.listing(commit) if commit is not None else {}
    there = [name for name in (manifest, f"{manifest}{ENDING}") if name in listing]
    if key is None and len(there) < 2:
        return
    if commit is None or manifest not in listing:
        yield f"expected a signed {manifest}; found no such file"
        return
    if large := [name for name in there if listing[name].size > JSON]:
        yield f"expected {large[0]} of at most {JSON:,} bytes; found {listing[large[0]].size:,}"
        return
    folder = source.folder(commit, there)
    data, *signature = (read_bytes(folder / name) for name in there)
    if key is None and stated_key(signature[0]) is None:
        yield f"expected a signature in {there[1]}; found something else"
    if key is not None and (problem := signature_problem(manifest, data, signature[0] if signature else None, key)):
        yield problem


def _audit_suite(sources: Sequence[Source], deep: bool) -> Audit:
    """One repository per checkpoint: each `main` is one."""
    saved = list[Saved]()
    for source in sources:
        commit = source.labels().get(MAIN)
        name, files = step_name(source.repo.partition("/")[2]), source.listing(commit) if commit else {}
        saved.append(Saved(source.repo, name, source, commit or "", files))
    suite = SuiteAudit(sorted(saved, key=lambda one: (one.place, one.label)), deep, "the repositories")
    return Audit(_bounded(suite.findings()), len(suite.steps), False)


def _labels(source: Source) -> tuple[Mapping[str, str], list[Finding]]:
    """At most MOST labels, `main` among them, and a finding if there are more."""
    labels = source.labels()
    if len(labels) <= MOST:
        return labels, []
    problem = f"expected at most {MOST:,} labels; found {len(labels):,}: those beyond were not looked at"
    kept = dict(islice(sorted(labels.items(), key=lambda pair: (pair[0] != MAIN, pair[0])), MOST))
    return kept, [Finding(MAIN, problem)]


def _bounded(findings: Iterator[Finding]) -> tuple[Finding, ...]:
    """At most MOST findings, each once."""
    found = dict.fromkeys(islice(findings, MOST + 1))
    if len(found) <= MOST:
        return tuple(found)
    return (
        *islice(found, MOST),
        Finding(MAIN, f"expected fewer than {MOST:,} problems; found more, which are not listed"),
    )
