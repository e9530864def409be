"""docs/walkthroughs.md, done literally in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmlit.data.scenes.write import write_scenes

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = re.split(r"^## ", (ROOT / "docs" / "walkthroughs.md").read_text(), flags=re.MULTILINE)[1:]
FILE = re.compile(r"^`([\w./]+)`[^\n]*:\n\n```(?:python|yaml)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)


def title(section: str) -> str:
    return section.splitlines()[0]


@pytest.fixture
def copy(tmp_path) -> Path:
    """The repository's files, changed and new ones included, with a small set of rendered scenes."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    write_scenes(root=tmp_path / "data" / "scenes", train=96, val=16, test=24, size=32, seed=0, workers=1)
    return tmp_path


def test_there_are_three():
    assert [title(section) for section in SECTIONS] == ["Add an alignment", "Add an encoder", "Add a data set"]


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS, ids=title)
def test_walkthrough(copy, section):
    files, commands = FILE.findall(section), COMMANDS.findall(section)
    assert [Path(name).suffix for name, _ in files] == [".py", ".yaml", ".py"]
    for name, text in files:
        assert not (copy / name).exists(), "a walkthrough edits nothing"
        (copy / name).write_text(text)
    # the interpreter's folder first: python and pytest as in an activated environment; the copy before the checkout
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(copy)}
    assert commands
    for block in commands:
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{block}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    sources = [name for name, _ in files if name.endswith(".py")]
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", *sources]
    code = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert code.returncode == 0, code.stdout
