"""Every command of the README is understood: composed, parsed or found in the Makefile."""

import re
import shlex
from pathlib import Path

import pytest
from runs.conftest import forked

from mmlit.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    line.partition(" #")[0].strip()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs" / "results").glob("*.md")))
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


def test_the_two_commands_are_there():
    assert {"make compare", "make test"} <= set(COMMANDS)
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] == "mmlit":
        _parser().parse_args(words[1:])
    elif words[:2] == ["python", "train.py"]:
        extra = [str(ROOT / "sweeps") if word == "sweeps" else word for word in words[2:]]
        single = [word.partition(",")[0] if "--config-dir" in words and "=" in word else word for word in extra]
        ended = forked([*([] if "--cfg" in words else ["--cfg", "job"]), *single])
        assert ended.code == 0, ended.err
    else:
        assert command == "source .venv/bin/activate"
