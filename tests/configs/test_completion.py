"""TAB in bash: `mmlit` by its own script, `train.py` by Hydra's."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: presses TAB behind each line, as bash does: words, the place of the last, and the line itself
_TAB = """
press() {
    COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
    COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    [[ $1 == *" " ]] && COMP_WORDS+=("") && COMP_CWORD=$((COMP_CWORD + 1))
    "$FUNCTION" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[@]}"
}
"""


def completed(script: str, *lines: str) -> list[set[str]]:
    """What bash offers behind each line, once it has evaluated what a command printed."""
    command = shlex.split(lines[0])[0]
    function = f'read -ra FOUND <<< "$(complete -p {command})"; FUNCTION=${{FOUND[-2]}}'
    presses = [f"press {shlex.quote(line)}" for line in lines]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        ["bash", "--norc", "-c", "\n".join([f'eval "$({script})"', _TAB, function, *presses])],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stderr == ""
    return [set(line.split()) for line in ended.stdout.splitlines()]


def test_mmlit_completes_commands_options_folders_and_choices():
    offered = completed(
        "python -m mmlit.cli completion bash",
        "mmlit ru", "mmlit runs ", "mmlit runs prune --k", "mmlit runs list con", "mmlit evaluate x --evaluator coco_",
    )  # fmt: skip
    assert offered[0] == {"runs"}
    assert {"list", "show", "diff", "best", "prune"} <= offered[1]
    assert offered[2] == {"--keep"}
    assert offered[3] == {"conf"}
    assert offered[4] == {"coco_1k", "coco_5k"}


def test_train_completes_choices_and_options():
    """`train.py` answers `--help` itself: Hydra's `--shell-completion` must reach Hydra all the same."""
    offered = completed(
        "python train.py --shell-completion install=bash",
        "python train.py alignment=jo", "python train.py alignment=joint alignment.temp", "python train.py --help trai",
    )  # fmt: skip
    assert offered == [{"alignment=joint"}, {"alignment.temperature="}, {"trainer=", "trainer."}]


def test_zsh_gets_a_script_of_its_own():
    ended = subprocess.run(
        [sys.executable, "-m", "mmlit.cli", "completion", "zsh"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("#compdef mmlit\n")
    assert "prune" in ended.stdout


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]):
    from mmlit.cli import main

    with pytest.raises(SystemExit):
        main(["completion", "fish"])
    assert "choose from" in capsys.readouterr().err
