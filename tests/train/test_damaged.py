"""A run whose files were damaged or forged: each is a sentence, before anything is written or computed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from prisma.checkpoint import WEIGHTS, read_tensors, weights_hash
from prisma.errors import PrismaError
from prisma.ledger import seal
from prisma.publish import publish
from prisma.recipes import recipe
from prisma.run_folder import METRICS, PROBE, RESULTS, STATE
from prisma.train import train
from tests.conftest import SMALL
from tests.run_edits import accept_changes

HEAD = "readout.head.weight"  # [10, 8]
Tensors, Header = dict[str, Tensor], dict[str, str]


def resume(run: Path) -> None:
    train(recipe("digits").override(SMALL), run, resume=True, progress=False)


def snapshot(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def refused(run: Path, work: Callable[[], object], words: str) -> None:
    """The work ends with one sentence that says this, and changes no file."""
    before = snapshot(run)
    with pytest.raises(PrismaError, match=words) as error:
        work()
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert snapshot(run) == before


@pytest.fixture
def stopped(run: Path) -> Path:
    """The run as a kill before its results leaves it: at step 6, with every checkpoint."""
    (run / RESULTS).unlink()
    return run


def put(name: str, value: Tensor) -> Callable[[Tensors, Header], None]:
    return lambda tensors, header: tensors.update({name: value})


def state(name: str, value: str) -> Callable[[Tensors, Header], None]:
    return lambda tensors, header: header.update({name: value})


def drop(*starts: str) -> Callable[[Tensors, Header], None]:
    def change(tensors: Tensors, header: Header) -> None:
        for name in [name for name in tensors if name.startswith(starts)]:
            del tensors[name]

    return change


STEP = r"expected a step from 0 to 6 in the header of .*state\.safetensors; found "
FORGED: dict[str, tuple[Callable[[Tensors, Header], object], str]] = {
    "a moment of one number": (
        put(f"exp_avg.{HEAD}", torch.zeros(1)),
        rf"expected exp_avg\.{HEAD} in .* to be torch\.float32 \[10, 8\]; found torch\.float32 \[1\]",
    ),
    "a transposed moment": (
        put(f"exp_avg_sq.{HEAD}", torch.zeros(8, 10)),
        r"\[10, 8\]; found torch\.float32 \[8, 10\]",
    ),
    "an empty moment": (put(f"exp_avg.{HEAD}", torch.zeros(0)), r"\[10, 8\]; found torch\.float32 \[0\]"),
    "a moment in half precision": (
        put(f"exp_avg_sq.{HEAD}", torch.zeros(10, 8, dtype=torch.float16)),
        r"to be torch\.float32 \[10, 8\]; found torch\.float16 \[10, 8\]",
    ),
    "a moment in double precision": (put(f"exp_avg.{HEAD}", torch.zeros(10, 8).double()), r"found torch\.float64"),
    "a moment of integers": (put(f"exp_avg.{HEAD}", torch.zeros(10, 8).long()), r"found torch\.int64"),
    "a weight of another shape": (
        put(f"weight.{HEAD}", torch.zeros(10, 9)),
        r"\[10, 8\]; found torch\.float32 \[10, 9\]",
    ),
    "a count of another shape": (
        put(f"step.{HEAD}", torch.full((2,), 6.0)),
        r"float32 \[\]; found torch\.float32 \[2\]",
    ),
    "another count": (put(f"step.{HEAD}", torch.tensor(5.0)), rf"expected 6 updates in step\.{HEAD} of .*; found 5"),
    "a count of NaN": (put(f"step.{HEAD}", torch.tensor(torch.nan)), r"expected 6 updates in .*; found nan"),
    "no moments": (drop("exp_avg", "step"), r"state\.safetensors lacks exp_avg\..*, which the state of step 6 has"),
    "one moment less": (drop(f"exp_avg_sq.{HEAD}"), rf"lacks exp_avg_sq\.{HEAD}, which the state of step 6 has"),
    "no counts": (drop("step"), r"lacks step\..*, which the state of step 6 has"),
    "one weight less": (drop(f"weight.{HEAD}"), rf"lacks weight\.{HEAD}"),
    "nothing": (drop(""), r"lacks weight\."),
    "a tensor more": (put("exp_avg.ghost", torch.zeros(1)), r"only the state of step 6 in .*; found exp_avg\.ghost"),
    "a word as step": (state("step", "six"), STEP + "'six'"),
    "an empty step": (state("step", ""), STEP + "''"),
    "a step below zero": (state("step", "-1"), STEP + "'-1'"),
    "half a step": (state("step", "5.5"), STEP + "'5.5'"),
    "a step after the last": (state("step", "7"), STEP + "'7'"),
    "a huge step": (state("step", "9" * 5000), STEP + "'9+…9+'"),
    "digits of another script": (state("step", "٣"), STEP + "'٣'"),
    "an earlier step": (state("step", "4"), "expected 4 updates in .*; found 6"),
    "step zero": (state("step", "0"), "expected only the state of step 0 in .*; found exp_avg"),
    "no step": (lambda tensors, header: header.pop("step"), STEP + "None"),
    "another run": (state("run", "0123"), r"expected the state of run [0-9a-f]+ in .*; found that of 0123"),
    "no hashes": (lambda tensors, header: header.pop("files"), "expected the hashes of earlier files .*; found none"),
    "hashes that are a list": (state("files", "[]"), "expected the hashes of earlier files .*; found none"),
    "hashes that are not JSON": (state("files", "{"), "expected the hashes of earlier files .*; found none"),
    "deep hashes": (state("files", "[" * 90_000), "expected the hashes of earlier files .*; found none"),
    "another hash": (state("files", f'{{"{PROBE}": "0"}}'), rf"expected {PROBE} in the run .*; found it changed"),
    "a hash that is a number": (
        state("files", f'{{"{PROBE}": 3}}'),
        rf"expected {PROBE} in the run .*; found it changed",
    ),
    "the hash of a file elsewhere": (
        state("files", '{"../../x": "0"}'),
        r"expected \.\./\.\./x in the run .*; found no",
    ),
    "a hash of the log that is a list": (
        state("files", f'{{"{METRICS}": [1]}}'),
        rf"expected {METRICS} .*; found it ch",
    ),
}


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("case", FORGED)
def test_a_forged_state_is_a_sentence(stopped: Path, case: str, sealed: bool) -> None:
    """Whether or not the forger also wrote the hash anew: then shapes, types and counts are what is checked."""
    forge, words = FORGED[case]
    tensors, header = read_tensors(stopped / STATE)
    old = header.pop("sha256")
    header = dict(header)
    forge(tensors, header)
    new = seal(header, weights_hash(tensors)) if sealed else old
    save_file({name: x.contiguous() for name, x in tensors.items()}, stopped / STATE, {**header, "sha256": new})
    words = words if sealed else f"{words}|expected the state that training wrote in .*; found it changed"
    refused(stopped, lambda: resume(stopped), words)


@pytest.mark.parametrize("place", [12, 0.3, 0.5, 0.7, -1])
def test_a_flipped_bit_anywhere_in_the_state_is_seen(stopped: Path, place: float) -> None:
    data = bytearray((stopped / STATE).read_bytes())
    data[place if isinstance(place, int) else int(place * len(data))] ^= 4
    (stopped / STATE).write_bytes(data)
    refused(stopped, lambda: resume(stopped), r"state\.safetensors")


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 64, b"{}"])
def test_a_state_that_is_something_else_is_a_sentence(stopped: Path, content: bytes) -> None:
    (stopped / STATE).write_bytes(content)
    refused(stopped, lambda: resume(stopped), r"state\.safetensors")


NO_RESULTS = r"expected the results and seeds of a run in .*results\.json; found something else"
BAD_RESULTS: dict[str, tuple[bytes, str]] = {
    "an empty object": (b"{}", NO_RESULTS),
    "a list": (b"[]", r"expected a JSON object in .*results\.json; found list"),
    "a scalar": (b"3", r"expected a JSON object in .*results\.json; found int"),
    "null": (b"null", r"expected a JSON object in .*results\.json; found NoneType"),
    "nothing": (b"", r"expected JSON in .*results\.json"),
    "a torn file": (b'{"recipe": "dig', r"expected JSON in .*results\.json"),
    "no UTF-8": (b'{"recipe": "\xff"}', r"results\.json"),
    "deep JSON": (b"[" * 100_000, r"results\.json"),
    "results that are a scalar": (b'{"results": 3, "seeds": {}}', NO_RESULTS),
    "results of scalars": (b'{"results": [3], "seeds": {}}', NO_RESULTS),
    "a row without a value": (b'{"results": [{"name": "x"}], "seeds": {}}', NO_RESULTS),
    "a value that is a word": (
        b'{"results": [{"name": "x", "value": "y", "split": "test", "n": 1}], "seeds": {}}',
        NO_RESULTS,
    ),
    "no seeds": (b'{"results": [{"name": "x", "value": 1.0, "split": "test", "n": 1}]}', NO_RESULTS),
}


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize("case", BAD_RESULTS)
def test_results_that_are_something_else_are_a_sentence(run: Path, tmp_path: Path, case: str, accepted: bool) -> None:
    """On resuming and on publishing; also if the run's hashes were written anew."""
    content, words = BAD_RESULTS[case]
    (run / RESULTS).write_bytes(content)
    if accepted:
        accept_changes(run)
    refused(run, lambda: resume(run), words)
    refused(run, lambda: publish(run, "lab/tiny", tmp_path / "hub", progress=False), words)
    assert not (tmp_path / "hub").exists()


LINE = '{"step": 3, "loss": 1.0, "lr": 0.1}'
BAD_LINES: dict[str, tuple[bytes, str]] = {
    "no UTF-8": (b'{"step": "\xff\xfe"}', "UTF-8 in line 4 of .*; found the byte 0xff at 10"),
    "a scalar": (b"3", "expected a JSON object on every line of .*; found 3 on line 4"),
    "a list": (b"[3]", "expected a JSON object on every line of .*; found .* on line 4"),
    "null": (b"null", "expected a JSON object on every line of .*; found .* on line 4"),
    "a torn line": (b'{"step": 3, "lo', "expected JSON in line 4 of .*"),
    "an empty line": (b"", "line 4 of "),
    "deep JSON": (b"[" * 100_000, "line 4 of "),
    "a huge integer": (b'{"step": ' + b"9" * 10_000 + b"}", "line 4"),
    "another step": (b'{"step": 2}', "expected step 3 on line 4 of .*; found 2|a line for every step from 0 to 6"),
    "no step": (b"{}", "expected step 3 on line 4 of .*; found None|a line for every step from 0 to 6"),
    "a step that is a word": (b'{"step": "3"}', "expected step 3 on line 4 of .*; found '3'|a line for every step"),
    "another loss": (LINE.encode(), r"expected metrics\.jsonl .*; found it changed"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_line_of_the_metrics_that_is_something_else_is_named(run: Path, tmp_path: Path, case: str) -> None:
    """On publishing and on resuming a run, finished or not."""
    content, words = BAD_LINES[case]
    lines = (run / METRICS).read_bytes().split(b"\n")
    lines[3] = content
    (run / METRICS).write_bytes(b"\n".join(lines))
    hub = tmp_path / "hub"
    refused(run, lambda: publish(run, "lab/tiny", hub, progress=False), words)
    refused(run, lambda: resume(run), r"expected metrics\.jsonl in the run .*; found it changed: restore it")
    if case != "another loss":
        accept_changes(run)
        refused(run, lambda: publish(run, "lab/tiny", hub, progress=False), words)
    (run / RESULTS).unlink()
    refused(run, lambda: resume(run), words)
    assert not hub.exists()


def edit_config(folder: Path) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "labels": [f"class {i}" for i in range(10)]}))


CHECKPOINT = "checkpoints/step-000002"
BAD_CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (shutil.rmtree, f"expected {CHECKPOINT}/config.json in the run .*; found no such file"),
    "without weights": (
        lambda folder: (folder / WEIGHTS).unlink(),
        f"{CHECKPOINT}/{WEIGHTS} in .*; found no such file",
    ),
    "truncated": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
        f"expected {CHECKPOINT}/{WEIGHTS} in the run .*; found it changed",
    ),
    "emptied": (lambda folder: (folder / WEIGHTS).write_bytes(b""), f"{CHECKPOINT}/{WEIGHTS} in .*; found it changed"),
    "edited": (edit_config, f"expected {CHECKPOINT}/config.json in the run .*; found it changed"),
    "another one's": (
        lambda folder: shutil.copyfile(folder.with_name("step-000001") / WEIGHTS, folder / WEIGHTS),
        f"expected {CHECKPOINT}/{WEIGHTS} in the run .*; found it changed",
    ),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_a_changed_checkpoint_is_named(run: Path, tmp_path: Path, case: str) -> None:
    """On resuming a run, finished or not; and publishing it is refused."""
    change, words = BAD_CHECKPOINTS[case]
    change(run / CHECKPOINT)
    refused(run, lambda: resume(run), words)
    refused(run, lambda: publish(run, "lab/tiny", tmp_path / "hub", progress=False), "step-000002")
    (run / RESULTS).unlink()
    refused(run, lambda: resume(run), words)
    assert not (tmp_path / "hub").exists()
