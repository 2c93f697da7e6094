"""The main job as a user does it: `prisma demo`, then the README's own code and commands on what it made."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PRISMA = Path(sys.executable).with_name("prisma")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def prisma(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PRISMA, *shlex.split(command)], cwd=folder, capture_output=True, text=True, timeout=240)


@dataclass(frozen=True)
class Demo:
    folder: Path
    stdout: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    done = prisma("demo --no-app", folder)
    assert done.returncode == 0, done.stderr
    return Demo(folder, done.stdout)


def test_digits_reach_their_accuracy_and_the_table_says_so(demo: Demo) -> None:
    results = json.loads((demo.folder / "runs/digits/results.json").read_text())
    test = next(row for row in results["results"] if row["name"] == "test accuracy")
    assert test["n"] == 360
    assert test["value"] >= 0.96
    assert f"{test['value']:.4f}" in demo.stdout
    assert "Published prisma/digits" in demo.stdout


def test_a_second_demo_reuses_everything(demo: Demo) -> None:
    before = {p: p.lstat().st_mtime_ns for p in sorted(demo.folder.rglob("*"))}
    again = prisma("demo --no-app", demo.folder)
    assert again.returncode == 0, again.stderr
    assert "Reusing the finished run" in again.stdout
    assert "nothing was written" in again.stdout
    assert {p: p.lstat().st_mtime_ns for p in sorted(demo.folder.rglob("*"))} == before


def test_every_label_serves_what_it_claims(demo: Demo) -> None:
    audit = prisma("audit prisma/digits --hub hub --json", demo.folder)
    assert audit.returncode == 0, audit.stderr
    answer = json.loads(audit.stdout)
    steps = [entry.name for entry in (demo.folder / "runs/digits/checkpoints").iterdir()]
    assert answer["findings"] == []
    assert answer["checkpoints"] == len(steps) > 10


@pytest.mark.parametrize("code", blocks("python"))
def test_readme_python_runs(demo: Demo, code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=demo.folder, check=True, timeout=240)


def test_readme_commands_run(demo: Demo) -> None:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    for line in (line for line in lines if line.startswith("prisma ")):
        if line.startswith("prisma app"):
            continue  # opened in a browser by tests/app
        done = prisma(line.removeprefix("prisma "), demo.folder)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    for target in (line.split()[1] for line in lines if line.startswith("make ")):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True, timeout=240)


def test_readme_results_come_from_results_json() -> None:
    script = ROOT / "tools" / "readme.py"
    code = f"import runpy; m = runpy.run_path({str(script)!r}); print(m['render'](m['README'].read_text()), end='')"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240).stdout
    assert made == README
    assert re.search(r"\| \[digits\].*0\.9\d\d", README)


def test_readme_result_is_what_the_demo_reaches(demo: Demo) -> None:
    committed = json.loads((ROOT / "hub_cards/digits/results.json").read_text())
    reached = json.loads((demo.folder / "runs/digits/results.json").read_text())
    there, here = ({row["name"]: row["value"] for row in r["results"]} for r in (committed, reached))
    for name, value in there.items():  # another processor rounds differently
        assert here[name] == pytest.approx(value, **({"abs": 0.02} if "accuracy" in name else {"rel": 0.3})), name
