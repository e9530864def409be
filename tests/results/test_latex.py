"""The LaTeX table: its columns, and that no label breaks it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mmlit.results.compare import compare
from mmlit.results.latex import escape_latex, latex

MakeRun = Callable[..., Path]


def test_rows_have_as_many_cells_as_there_are_columns(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(f"p{seed}", alignment="projection", seed=seed, i2t_rank=(1, 2, 2, 2))
        make_run(f"j{seed}", seed=seed)
    make_run("x", alignment="a & b")
    lines = latex(compare([tmp_path / "runs"], allow_unlike=True)).splitlines()
    start = next(line for line in lines if line.startswith("\\begin{tabular}"))
    rows = [line.replace("\\&", "") for line in lines if line.endswith("\\\\")]
    assert len(rows) == 4
    assert {row.count("&") + 1 for row in rows} == {len(start.removeprefix("\\begin{tabular}").strip("{}"))}
    assert rows[1].startswith("projection & 3 & $25.0 \\pm 0.0$")
    assert "$+75.0$ & 0.81 & 61.2 & 283.33" in rows[2], "12 queries in 3.4 seconds"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cross_attention", r"cross\_attention"),
        ("50 % & more", r"50 \% \& more"),
        ("a\\b{c}$#~^", r"a\textbackslash{}b\{c\}\$\#\textasciitilde{}\textasciicircum{}"),
        ("<two>\nlines", r"\textless{}two\textgreater{} lines"),
    ],
)
def test_signs_stand_for_themselves(text: str, told: str) -> None:
    """Trap 36: a label is text, not a command."""
    assert escape_latex(text) == told
