"""docs/methods.md, written from docstrings of alignments and auxiliaries, and from records: `make docs`."""

import ast
import csv
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

from mmlit.configuration.axes import first_comment
from mmlit.configuration.stored import CONF

_HEAD = """# Methods

Written by `make docs` from docstrings and records; a test keeps it so.

`alignment=NAME` takes one; every one goes with every pair of towers, precision, number of devices and `step`. Whether
it compares two vectors (a dual encoder, ranked by one matrix product), reads tokens, or looks at every pair, decides
what ranking costs; a costly score reranks candidates of a cheap one where the method has such.

Options are given as `alignment.OPTION=VALUE`, or `auxiliary.NAME.OPTION=VALUE`. Of every method: `dim`, the width of
the space that is shared; `image_head`, `text_head`, what carries each tower's vector into it (`linear`, `mlp`, `gated`,
or `identity`); `dropout` in these.
"""
_TABLE = """
| `alignment=` | rsum | i2t R@1 | t2i R@1 | training | ranking | photographs | what it is |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""
_BELOW = """
`sweeps/methods.yaml` on rendered scenes: {pairs:,} pairs seen, mean ± standard deviation over {seeds} seeds, the last
checkpoint on the test split ([all columns](results/methods.csv)). Training and ranking are times, in units of
`contrastive`'s. *Photographs* is the rsum on Flickr8k with both towers frozen, as in
[flickr8k.md](results/flickr8k.md): {photographs:,} pairs seen, the epoch that is best on 500 images set aside, reported
on `val`; a number without a spread is one seed ([all columns](results/methods_flickr8k.csv); of the four strategies
with three seeds [here](results/flickr8k.csv)): that page's command with `seed=0 alignment=NAME,…`, and for all the rate
and dropout that were chosen there for `contrastive`.

One budget for all, and each method's own yaml: one that another budget or its own tuning would suit better stands lower
than it could. Rows that lie closer together than their spreads are not told apart: three seeds show little of methods.
Times were measured while other work ran now and then: read orders of magnitude from them.
"""
_OPTIONS = """
## Options of contrastive

Label smoothing, weights on hard negatives and the decoupled denominator, alone and together
(`sweeps/contrastive_options.yaml`, budget and data as above; [all columns](results/contrastive_options.csv)).

| `alignment=contrastive` | rsum | difference | p | i2t R@1 | t2i R@1 |
| --- | ---: | ---: | ---: | ---: | ---: |
"""
_AUXILIARIES = """
# Auxiliaries

`auxiliary=[NAME,…]` adds terms to the loss of any alignment; what is evaluated and saved as a model knows none of them.

| `auxiliary=` | rsum | difference | p | training | what it is |
| --- | ---: | ---: | ---: | ---: | --- |
"""
_BELOW_AUXILIARIES = """
Beside `contrastive`, whose row is the first (`sweeps/auxiliaries.yaml`, budget and data as above;
[all columns](results/auxiliaries.csv)). In both tables the difference is to the first row, with its standard error over
seeds and images, and p is that of the methods (b), corrected after Holm ([what that says](evaluation.md)).
"""
#: options that every method has
_EVERYWHERE = ("dim", "image_head", "text_head", "dropout")
_OFF = ("false", "0.0")
_LABEL = re.compile(r"^(Args|Raises|Attributes|Source|Differs|When|The collapse):\s*", re.MULTILINE)


def method_page(conf: Path, results: Path) -> str:
    """The page as Markdown.

    Args:
        conf: the folder of the axes.
        results: folder of the tables that `mmlit compare` wrote.
    """
    files = sorted((conf / "alignment").glob("*.yaml"))
    scenes, one_seed, some_seeds = (
        _rows(results / f"{name}.csv") for name in ("methods", "methods_flickr8k", "flickr8k")
    )
    photographs = one_seed | some_seeds
    ordered = sorted(files, key=lambda file: (file.stem not in scenes, -_number(scenes.get(file.stem), "rsum_mean")))
    parts = [_HEAD, _TABLE, *(_line(file, scenes, photographs) for file in ordered)]
    pairs = (int(_number(rows["contrastive"], "pairs_seen_most")) for rows in (scenes, photographs))
    seeds = max(int(row["n"]) for row in scenes.values())
    parts.append(_BELOW.format(pairs=next(pairs), photographs=next(pairs), seeds=seeds))
    parts += [_section(file, "alignments") for file in files]
    options = _rows(results / "contrastive_options.csv")
    parts += [_OPTIONS, *(_option_line(label, row) for label, row in options.items())]
    return "".join([*parts, _AUXILIARIES, *_auxiliaries(conf, results)])


def _auxiliaries(conf: Path, results: Path) -> Iterable[str]:
    files = {file.stem: file for file in sorted((conf / "auxiliary").glob("*.yaml"))}
    rows = _rows(results / "auxiliaries.csv")
    base = next(row for row in rows.values() if row["baseline"] == "True")
    told = set()
    for label, row in rows.items():
        names = re.findall(r"\w+", label.partition("auxiliary=")[2])
        about = first_comment(files[names[0]].read_text()) if len(names) == 1 else ""
        shown = f"[`{names[0]}`](#{names[0]})" if len(names) == 1 else ", ".join(f"`{name}`" for name in names)
        cost = _number(row, "fit_seconds_mean") / _number(base, "fit_seconds_mean")
        yield f"| {shown or 'none'} | {_spread(row, 'rsum')} | {_difference(row)} | {cost:.1f} | {about} |\n"
        told |= set(names)
    for name in files.keys() - told:
        yield f"| [`{name}`](#{name}) | | | | | {first_comment(files[name].read_text())} |\n"
    yield _BELOW_AUXILIARIES
    yield from (_section(file, "auxiliaries") for file in files.values())


def _rows(table: Path) -> dict[str, dict[str, str]]:
    """What `mmlit compare` wrote as table.csv, by label, in its order."""
    with table.open(newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def _line(file: Path, scenes: dict[str, dict[str, str]], photographs: dict[str, dict[str, str]]) -> str:
    about, cells = first_comment(file.read_text()), [""] * 5
    if row := scenes.get(file.stem):
        cells = [_spread(row, name) for name in ("rsum", "i2t_r1", "t2i_r1")]
        for cost in ("fit_seconds_mean", "evaluation_seconds_mean"):
            cells.append(f"{_number(row, cost) / _number(scenes['contrastive'], cost):.1f}")
    cells.append(_spread(photographs[file.stem], "rsum") if file.stem in photographs else "")
    return f"| [`{file.stem}`](#{file.stem}) | {' | '.join(cells)} | {about} |\n"


def _option_line(label: str, row: dict[str, str]) -> str:
    """Only options that are on are named."""
    named = [part.removeprefix("alignment.") for part in label.split(", ") if part.partition("=")[2] not in _OFF]
    cells = [_spread(row, "rsum"), _difference(row), _spread(row, "i2t_r1"), _spread(row, "t2i_r1")]
    return f"| {', '.join(named) or 'none of them'} | {' | '.join(cells)} |\n"


def _difference(row: dict[str, str]) -> str:
    """Difference to the baseline and p, two cells."""
    if not row["rsum_difference"]:
        return " | "
    p = _number(row, "rsum_difference_methods_p") if row["rsum_difference_methods_p"] else None
    told = "" if p is None else f"{p:.3f}" if p >= 0.001 else "&lt;0.001"
    return f"{_number(row, 'rsum_difference'):+.1f} ± {_number(row, 'rsum_difference_total_error'):.1f} | {told}"


def _spread(row: dict[str, str], name: str) -> str:
    mean, spread = float(row[f"{name}_mean"]), row[f"{name}_sd"]
    return f"{mean:.1f} ± {float(spread):.1f}" if spread else f"{mean:.1f}"


def _number(row: dict[str, str] | None, column: str) -> float:
    return float(row[column]) if row else float("-inf")


def _section(file: Path, package: str) -> str:
    """What its docstring says, without arguments and errors, which `--help` and the yaml file have."""
    name = str(yaml.safe_load(file.read_text())["_target_"]).rpartition(".")[2]
    source = CONF.parent / "mmlit" / package / f"{file.stem}.py"
    classes = {node.name: node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef)}
    labels = _LABEL.split(ast.get_docstring(classes[name]) or "")
    parts, options = [f"\n## {file.stem}\n\n{_flowing(labels[0])}\n"], ""
    for label, text in zip(labels[1::2], labels[2::2], strict=True):
        if label == "Args":
            options = _options(text, yaml.safe_load(file.read_text()))
        elif label not in ("Raises", "Attributes"):
            parts.append(f"\n**{label}**: {_flowing(text)}\n")
    return "".join([*parts, options])


def _options(text: str, defaults: dict[str, Any]) -> str:
    """A line for each option that not every method has, with its default."""
    found = re.findall(r"^ *(\w+): (.*(?:\n(?! *\w+: ).*)*)", dedent(text.strip("\n")), re.MULTILINE)
    rows = [
        f"| `{name}` | `{json.dumps(defaults[name])}` | {_flowing(about)} |\n"
        for name, about in found
        if name in defaults and name not in _EVERYWHERE and not isinstance(defaults[name], dict)
    ]
    return f"\n| option | default | |\n| --- | --- | --- |\n{''.join(rows)}" if rows else ""


def _flowing(text: str) -> str:
    """One line for each paragraph, with a link where a paper is named."""
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", "\n\n".join(paragraphs))


if __name__ == "__main__":
    sys.stdout.write(method_page(CONF, CONF.parent / "docs" / "results"))
