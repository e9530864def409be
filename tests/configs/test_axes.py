"""What `python train.py --help` shows."""

import re
from pathlib import Path

import pytest

from mmlit.cli import training_help
from mmlit.configuration.axes import describe, first_comment

ROOT = Path(__file__).resolve().parents[2]
CHOICES = sorted([*(ROOT / "conf").glob("*/*.yaml"), *(ROOT / "sweeps").glob("*.yaml")])


def test_every_axis_is_there_with_a_word_about_it():
    lines = training_help().splitlines()
    for folder in (path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        (line,) = [line for line in lines if line.startswith(f"{folder.name}: ")]
        assert len(line) > len(folder.name) + 5


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_choice_is_there_with_a_line_that_fits(path):
    about = first_comment(path.read_text())
    assert about
    section = re.split(r"^(?=\w)", training_help(), flags=re.MULTILINE)
    (own,) = [part for part in section if part.startswith(f"{path.parent.name}: ")]
    (line,) = [line for line in own.splitlines()[1:] if line.lstrip(" *").split()[0] == path.stem]
    assert line.endswith(about), f"the first line of {path} is too long for the help"


def test_what_is_taken_by_default_is_marked(tmp_path):
    for name, text in {"one": "# @package _global_\n# python train.py x\n# first\n", "two": "# second\na: 1\n"}.items():
        (tmp_path / "conf" / "kind").mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / "kind" / f"{name}.yaml").write_text(text)
    (tmp_path / "conf" / "config.yaml").write_text("defaults:\n  - kind: [two]  # which kind\nseed: 0\n")
    lines = describe(tmp_path / "conf", tmp_path).splitlines()
    assert lines[lines.index("kind: which kind") + 1 :][:2] == ["    one  first", "  * two  second"]
