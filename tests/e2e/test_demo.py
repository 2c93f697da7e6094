"""The main job as a user does it, with the installed wheel: `prisma demo`, then the README's code and commands."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import LIMIT, ROOT, Demo, Installed

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_digits_reach_their_accuracy_and_the_table_says_so(demo: Demo) -> None:
    results = json.loads((demo.folder / "runs/digits/results.json").read_text())
    test = next(row for row in results["results"] if row["name"] == "test accuracy")
    assert test["n"] == 360
    assert test["value"] >= 0.96
    assert f"{test['value']:.4f}" in demo.stdout
    assert "Published prisma/digits" in demo.stdout


def test_a_second_demo_reuses_everything_and_every_label_serves_what_it_claims(
    installed: Installed, demo: Demo, tmp_path: Path
) -> None:
    folder = copy_of(demo, tmp_path)
    before = {p: p.lstat().st_mtime_ns for p in sorted(folder.rglob("*"))}
    audit = ["prisma", "audit", "prisma/digits", "--hub", "hub"]
    said = installed.each(folder, ["prisma", "demo", "--no-app"], [*audit, "--json"], [*audit, "--deep"])
    assert {p: p.lstat().st_mtime_ns for p in sorted(folder.rglob("*"))} == before
    assert "is finished and is used as it is" in said
    again, found, text = re.split(r"^(\[.*\])$", said, flags=re.MULTILINE)
    assert "nothing was written" in again
    assert json.loads(found) == []
    steps = [entry.name for entry in (folder / "runs/digits/checkpoints").iterdir()]
    assert len(steps) > 10
    assert f"prisma/digits: {len(steps)} checkpoints and main have the files of the manifest" in text


def test_readme_python_runs(installed: Installed, demo: Demo) -> None:
    """Each block alone, with nothing that another one defined."""
    each = f"for code in {blocks('python')!r}: exec(compile(code, code, 'exec'), {{'__name__': '__main__'}})"
    installed.run(demo.folder, "python", "-W", "error", "-c", each)


def test_readme_commands_run(installed: Installed, demo: Demo, tmp_path: Path) -> None:
    folder = copy_of(demo, tmp_path)
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("prisma ")]
    commands = [command for command in commands if command[1] != "app"]  # opened in a browser by tests/app
    assert commands
    installed.each(folder, *commands)
    for target in (line.split()[1] for line in lines if line.startswith("make ")):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True, timeout=LIMIT)


def copy_of(demo: Demo, folder: Path) -> Path:
    """The demo's folder, for a test that writes into it."""
    return Path(shutil.copytree(demo.folder, folder / "demo", symlinks=True))


def test_readme_results_come_from_results_json() -> None:
    script = ROOT / "tools" / "readme.py"
    code = f"import runpy; m = runpy.run_path({str(script)!r}); print(m['render'](m['README'].read_text()), end='')"
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LIMIT
    ).stdout
    assert made == README
    assert re.search(r"\| \[digits\].*0\.9\d\d", README)


def test_readme_result_is_what_the_demo_reaches(demo: Demo) -> None:
    committed = json.loads((ROOT / "hub_cards/digits/results.json").read_text())
    reached = json.loads((demo.folder / "runs/digits/results.json").read_text())
    there, here = ({row["name"]: row["value"] for row in r["results"]} for r in (committed, reached))
    for name, value in there.items():  # another processor rounds differently
        assert here[name] == pytest.approx(value, **({"abs": 0.02} if "accuracy" in name else {"rel": 0.3})), name
