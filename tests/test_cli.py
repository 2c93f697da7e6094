"""The command line: exit codes, one sentence per mistake, and nothing half-written."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prisma import __version__, cli
from prisma.pretrained import opening
from prisma.pretrained.parity import Parity
from tests.pretrained.test_opening import of_timm

Prisma = Callable[..., tuple[int, str, str]]


@pytest.fixture
def prisma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Prisma:
    """Run a command in this process, in an empty folder -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prisma", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        code = exit_.value.code
        captured = capsys.readouterr()
        return int(code or 0), captured.out, captured.err

    return run


def one_sentence(stderr: str) -> str:
    """The last line, after any progress; there must be no traceback."""
    assert "Traceback" not in stderr
    return stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("command", ["demo", "mice", "train", "import", "models", "publish", "audit", "app"])
def test_every_command_has_help_with_an_example(prisma: Prisma, command: str) -> None:
    code, out, _ = prisma(command, "--help")
    assert code == 0
    assert f"Example: prisma {command}" in " ".join(out.split())


def test_models_lists_the_families_and_their_errors(prisma: Prisma) -> None:
    code, out, _ = prisma("models")
    assert code == 0
    assert "timm VisionTransformer" in out
    rows = json.loads(prisma("models", "--json")[1])
    assert all(row["float64"] <= 1e-9 and row["float32"] <= 1e-5 for row in rows if row["exact"])


def test_models_checks_weights_that_a_user_has(prisma: Prisma, tmp_path: Path) -> None:
    of_timm(tmp_path / "saved")
    code, out, _ = prisma("models", "--check", "saved", "--json")
    assert code == 0
    assert [row["where"] for row in json.loads(out)] == ["layer 0", "layer 1", "output"]
    code, out, _ = prisma("models", "--check", "saved", "--image-size", "64")
    assert code == 0 and len(out.splitlines()) == 4
    code, _, err = prisma("models", "--check", "timm/swin_tiny_patch4_window7_224")
    assert code == 1
    assert "attention within windows" in one_sentence(err)


def test_models_fails_where_a_difference_is_too_large(prisma: Prisma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "check", lambda *_, **__: {"image": Parity(0.1, (1e-7,))})
    code, out, _ = prisma("models", "--check", "anything")
    assert code == 1
    assert "1.0e-01" in out


def test_help_imports_no_torch() -> None:
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); sys.argv = ['prisma', '--help']"
    code += "; import prisma.cli; prisma.cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("False"), done


def test_mice_lists_every_recipe(prisma: Prisma) -> None:
    code, out, _ = prisma("mice", "--json")
    assert code == 0
    assert {"digits", "induction"} <= {row["mouse"] for row in json.loads(out)}
    assert "digits" in prisma("mice")[1]


def test_wrong_usage_is_exit_code_2(prisma: Prisma) -> None:
    assert prisma("train")[0] == 2
    assert prisma("fly")[0] == 2
    assert prisma("train", "digits", "--set", "steps")[0] == 2


SMALL = ("--set", "steps=3", "--set", "warmup=1", "--set", "d_model=8", "--set", "n_heads=2", "--set", "d_mlp=8")


def test_train_publish_audit_and_back(prisma: Prisma, tmp_path: Path) -> None:
    code, out, err = prisma("train", "digits", *SMALL, "--json")
    assert code == 0, err
    assert json.loads(out)["results"]
    code, out, err = prisma("publish", "runs/digits", "lab/tiny", "--hub", "hub", "--json")
    assert code == 0, err
    assert json.loads(out)["changed"] is True
    assert "up to date" in prisma("publish", "runs/digits", "lab/tiny", "--hub", "hub")[1]
    code, out, err = prisma("audit", "lab/tiny", "--hub", "hub")
    assert code == 0, err
    assert "lab/tiny: 4 checkpoints" in out  # steps 0, 1, 2 and the last
    blob = next(p for p in (tmp_path / "hub").rglob("step-000002") if p.is_file())
    assert blob.parent.name == "refs"
    blob.write_text((blob.parent / "step-000001").read_text())
    code, out, _ = prisma("audit", "lab/tiny", "--hub", "hub")
    assert code == 1
    assert "step-000002" in out


@pytest.mark.parametrize(
    ("command", "expected", "found"),
    [
        (["train", "digit"], "digits", "'digit'"),
        (["train", "digits", "--set", "stepz=3"], "steps", "stepz"),
        (["train", "digits", "--set", "steps=many"], "steps", "many"),
        (["train", "digits", "--set", "n_heads=7"], "n_heads", "d_model"),
        (["train", "digits", "--out", "full"], "full", "resume"),
        (["train", "digits", "--out", "absent", "--resume"], "absent", "resume"),
        (["publish", "absent", "lab/tiny", "--hub", "hub"], "absent", "run"),
        (["publish", "full", "lab/tiny", "--hub", "hub"], "full", "run"),
        (["publish", "full", "not a name", "--hub", "hub"], "OWNER/NAME", "not a name"),
        (["audit", "lab/tiny", "--hub", "absent"], "folder hub", "absent"),
        (["app", "--hub", "absent"], "folder hub", "absent"),
        (["app", "--prompts", "a cat, a dog"], "prompts are the classes of a CLIP", "model=None"),
        (["app", "--model", "./absent"], "checkpoint folder", "absent"),
    ],
)
def test_mistakes_get_one_sentence(
    prisma: Prisma, tmp_path: Path, command: list[str], expected: str, found: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = prisma(*command)
    assert code == 1
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert expected in err
    assert found in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    code += "; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    code += (
        "; sys.argv = 'prisma train digits --set steps=3 --set warmup=1'.split(); import prisma.cli; prisma.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert one_sentence(done.stderr).startswith("prisma: could not write")
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("model.safetensors"))


def test_version(prisma: Prisma) -> None:
    assert prisma("--version") == (0, f"{__version__}\n", "")


def test_publishing_to_the_hub_itself_is_refused_in_a_sentence(prisma: Prisma) -> None:
    for command in (["publish", "run", "lab/tiny"], ["audit", "lab/tiny"]):
        code, _, err = prisma(*command)
        assert code == 1
        assert "expected --hub DIR" in one_sentence(err)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyboardInterrupt(), "stopped; prisma train digits --out runs/digits --resume goes on from here"),
        (ModuleNotFoundError("No module named 'sklearn'", name="sklearn"), "expected the package sklearn, found none"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_stops_a_command_is_one_sentence(
    prisma: Prisma, monkeypatch: pytest.MonkeyPatch, error: BaseException, sentence: str
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("prisma.train.train", stopped)
    code, _, err = prisma("train", "digits")
    assert code == 1
    assert sentence in one_sentence(err)


def test_the_advice_to_resume_repeats_the_settings(prisma: Prisma, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prisma.train.train", stopped)
    _, _, err = prisma("train", "digits", "--set", "steps=900", "--out", "mine")
    assert "prisma train digits --set steps=900 --out mine --resume goes on from here" in err
