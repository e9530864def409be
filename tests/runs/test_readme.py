"""Every command of the README is understood: composed, parsed or found in the Makefile."""

import re
import shlex
from pathlib import Path

import pytest
from runs.conftest import forked

from mmlit.cli import parsed

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [
    line.partition(" #")[0].strip()
    for page in PAGES
    if page.name != "walkthroughs.md"  # it has a test of its own
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
    # other commands of these pages fetch, install and unpack
    if page.name not in ("coco.md", "data.md") or line.startswith(("python", "mmlit"))
]


def test_the_two_commands_are_there():
    assert {"make compare", "make test"} <= set(COMMANDS)
    assert len(COMMANDS) >= 12


def blocks(page: str) -> list[str]:
    """Everything in fences, without what is remarked beside it."""
    text = (ROOT / page).read_text()
    code = "".join(re.findall(r"```(?:bash|python)\n(.*?)```", text, re.DOTALL))
    return [line.partition(" #")[0].rstrip() for line in code.splitlines()]


def test_the_chinese_readme_has_the_same_commands_and_the_same_table():
    assert blocks("README.zh-CN.md") == blocks("README.md")
    tables = [
        re.findall(r"^\|[^`\n]*\|$", (ROOT / page).read_text(), re.MULTILINE)
        for page in ("README.md", "README.zh-CN.md")
    ]
    assert len(tables[0]) >= 6
    assert [row for row in tables[0] if re.search(r"\d ±", row)] == [
        row for row in tables[1] if re.search(r"\d ±", row)
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command):
    words = shlex.split(command)
    if words[0] == "make":
        for target in words[1:]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] == "mmlit":
        parsed(words[1:])
    elif words[:2] == ["python", "train.py"]:
        extra = [str(ROOT / "sweeps") if word == "sweeps" else word for word in words[2:]]
        single = [word.partition(",")[0] if "--config-dir" in words and "=" in word else word for word in extra]
        ended = forked([*([] if "--cfg" in words else ["--cfg", "job"]), *single])
        assert ended.code == 0, ended.err
    else:
        assert command in {"source .venv/bin/activate", ".venv/bin/pre-commit install"}
