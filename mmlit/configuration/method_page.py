"""docs/methods.md, written from the alignments' docstrings and from records: `make docs`."""

import ast
import csv
import re
import sys
from pathlib import Path

import yaml

from mmlit.configuration.axes import first_comment
from mmlit.configuration.stored import CONF

_HEAD = """# Methods

Written by `make docs` from the alignments' docstrings and from records; a test keeps it so.

`alignment=NAME` takes one; every one goes with every pair of towers, precision, number of devices and `step`. Whether
it compares two vectors (a dual encoder, ranked by one matrix product), reads tokens, or looks at every pair, decides
what ranking costs; a costly score reranks candidates of a cheap one where the method has such.
"""
_TABLE = """
| `alignment=` | rsum | i2t R@1 | t2i R@1 | training | ranking | what it is |
| --- | ---: | ---: | ---: | ---: | ---: | --- |
"""
_BELOW = """
Rendered scenes, {pairs:,} pairs seen, mean ± standard deviation over {seeds} seeds, the last checkpoint on the test
split ([all columns](results/methods.csv)); training and ranking are times, in units of `contrastive`'s. One budget for
all, and each method's own yaml: one that another budget or its own tuning would suit better stands lower than it could.
The numbers that are here come from `make compare`; `sweeps/methods.yaml` has the same settings for all methods.
"""
_LABEL = re.compile(r"^(Args|Raises|Attributes|Source|Differs|When|The collapse):\s*", re.MULTILINE)


def method_page(conf: Path, records: Path) -> str:
    """The page as Markdown.

    Args:
        conf: the folder of the axes.
        records: table.csv of `mmlit compare`, a row for each method that has a number.
    """
    files = sorted((conf / "alignment").glob("*.yaml"))
    with records.open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    parts = [_HEAD, _TABLE]
    parts += [_line(file, rows) for file in sorted(files, key=lambda file: -_number(rows, file.stem, "rsum_mean"))]
    some = next(iter(rows.values()))
    parts.append(_BELOW.format(pairs=int(some["pairs_seen_most"]), seeds=max(int(row["n"]) for row in rows.values())))
    parts += [_section(file) for file in files]
    return "".join(parts)


def _line(file: Path, rows: dict[str, dict[str, str]]) -> str:
    row, base = rows.get(file.stem), rows["contrastive"]
    about = first_comment(file.read_text())
    if row is None:
        return f"| [`{file.stem}`](#{file.stem}) | | | | | | {about} |\n"
    cells = [_spread(row, name) for name in ("rsum", "i2t_r1", "t2i_r1")]
    for cost in ("fit_seconds_mean", "evaluation_seconds_mean"):
        cells.append(f"{float(row[cost]) / float(base[cost]):.1f}")
    return f"| [`{file.stem}`](#{file.stem}) | {' | '.join(cells)} | {about} |\n"


def _spread(row: dict[str, str], name: str) -> str:
    mean, spread = float(row[f"{name}_mean"]), row[f"{name}_sd"]
    return f"{mean:.1f} ± {float(spread):.1f}" if spread else f"{mean:.1f}"


def _number(rows: dict[str, dict[str, str]], name: str, column: str) -> float:
    return float(rows[name][column]) if name in rows else float("-inf")


def _section(file: Path) -> str:
    """What its docstring says, without arguments and errors, which `--help` and the yaml file have."""
    module, _, name = str(yaml.safe_load(file.read_text())["_target_"]).rpartition(".")
    source = (CONF.parent / Path(*module.split("."))).with_suffix(".py")
    classes = {node.name: node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef)}
    labels = _LABEL.split(ast.get_docstring(classes[name]) or "")
    parts = [f"\n## {file.stem}\n\n{_flowing(labels[0])}\n"]
    for label, text in zip(labels[1::2], labels[2::2], strict=True):
        if label not in ("Args", "Raises", "Attributes"):
            parts.append(f"\n**{label}**: {_flowing(text)}\n")
    return "".join(parts)


def _flowing(text: str) -> str:
    """One line for each paragraph, with a link where a paper is named."""
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", "\n\n".join(paragraphs))


if __name__ == "__main__":
    sys.stdout.write(method_page(CONF, CONF.parent / "docs" / "results" / "methods.csv"))
