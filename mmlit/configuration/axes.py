"""What can be chosen: every axis with its choices and a line about each, read off the yaml files."""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

_USAGE = """Trains an image-text alignment, evaluates it once on the reported split and records the result.

  python train.py [AXIS=CHOICE ...] [option.name=VALUE ...]     one run
  python train.py --config-dir sweeps --config-name NAME [...]  a sweep, each job in a process of its own
  python train.py fit=false checkpoint=FILE [...]               evaluates a checkpoint with the options stored in it
  python train.py [...] --cfg job                               shows every option and its value; runs nothing

A choice is a file of conf/AXIS/, and everything in it can be given by its dotted name. * is the default.
"""
#: columns
_WIDTH = 120
_AXIS = re.compile(r"^  - (?P<axis>\w+): (?P<default>[^#]*?)\s*(?:#\s*(?P<about>.*))?$")


def describe(conf: Path, sweeps: Path) -> str:
    """The text that `python train.py --help` prints.

    Args:
        conf: folder of the axes, with config.yaml, whose defaults list names them and says a word about each.
        sweeps: folder of the named sweeps.
    """
    lines = [_USAGE]
    for axis, defaults, about in _axes(conf):
        lines.append(f"{axis}: {about}")
        lines += _listing(sorted((conf / axis).glob("*.yaml")), defaults)
    lines.append("top level: options of no axis")
    text = (conf / "config.yaml").read_text()
    lines += [f"    {line}" for line in text.splitlines() if re.match(r"(seed|fit|checkpoint|split): ", line)]
    lines.append("sweeps: --config-dir sweeps --config-name NAME")
    lines += _listing(sorted(sweeps.glob("*.yaml")), set())
    return "\n".join(lines)


def listing(folder: Path) -> list[str]:
    """A line for each choice of an axis, given its folder."""
    return _listing(sorted(folder.glob("*.yaml")), set())


def first_comment(text: str) -> str:
    """What a yaml file says of itself: its first line of comment that is neither a directive nor a command."""
    for line in text.splitlines():
        if line.startswith("# ") and not line.startswith(("# @package", "# python ")):
            return line[2:]
    return ""


def _axes(conf: Path) -> Iterator[tuple[str, set[str], str]]:
    """Name, choices by default, and meaning of each axis, in the order of config.yaml."""
    for line in (conf / "config.yaml").read_text().splitlines():
        if found := _AXIS.match(line):
            yield found["axis"], set(re.findall(r"\w+", found["default"])), found["about"] or ""


def _listing(files: list[Path], defaults: set[str]) -> list[str]:
    width = max((len(file.stem) for file in files), default=0)
    lines = []
    for file in files:
        mark = "*" if file.stem in defaults else " "
        about = shorten(first_comment(file.read_text()), _WIDTH - width - 6, placeholder=" …")
        lines.append(f"  {mark} {file.stem:<{width}}  {about}")
    return lines
