"""What a reader sees: cells, sentences, and labels that cannot break them."""

import csv
import io

import pytest
from rich.console import Console

from mmlit.results.comparison import DIFFERENCES, METRICS, Comparison, Difference, Row, Spread
from mmlit.results.spreadsheet import comma_separated
from mmlit.results.table import escape_markdown, markdown, terminal
from mmlit.results.words import findings


def row(label: str, *, rsum: float = 300.0, n: int = 3, difference: Difference | None = None) -> Row:
    sd = 1.25 if n > 1 else None
    return Row(
        label=label,
        seeds=tuple(range(n)),
        metrics={name: Spread(rsum if name == "rsum" else 1 / 3, sd, n) for name in METRICS},
        differences=dict.fromkeys(DIFFERENCES, difference) if difference else None,
        scored="rerank@32",
        split="test",
        gallery=(4, 8),
        parameters=912345,
        trainable=812345,
        pairs_seen=(40960, 40960),
        fit_seconds=Spread(61.23, sd, n),
        evaluation_seconds=Spread(3.4, sd, n),
        peak_memory=Spread(1812.0, sd, n),
    )


def comparison(*others: Row, notes: tuple[str, ...] = (), n: int = 3) -> Comparison:
    return Comparison((row("projection", n=n), *others), "projection", "R@K of this gallery.", notes)


def shown(given: Comparison) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(terminal(given))
    return file.getvalue()


HOLDS, INSIDE = Difference(12.34, 0.9, 1.26), Difference(-1.2, 0.9, 1.3)
UNKNOWN = Difference(5.0, 0.9, None)


def test_sentences_say_which_differences_hold() -> None:
    given = comparison(
        row("joint", difference=HOLDS), row("contrastive", difference=HOLDS), row("cross", difference=INSIDE)
    )
    sentences = findings(given)
    assert sentences[0] == (
        "rsum against projection: joint (+12.3) and contrastive (+12.3) hold; cross (-1.2) lies inside the spread."
    )
    assert sentences[2].startswith("t2i R@1 against projection: ")
    assert "exceeds 2 times its combined standard error" in sentences[3]
    assert "from 3 seeds is itself rough" in sentences[4]
    assert len(sentences) == 5


def test_one_seed_is_said_and_not_judged() -> None:
    sentences = findings(comparison(row("joint", n=1, difference=UNKNOWN)))
    assert sentences[0] == (
        "rsum against projection: joint (+5.0) exceeds the error over images, but the spread between seeds is unknown."
    )
    assert sentences[4].startswith("One seed only for joint: the spread between seeds is unknown there")
    assert "hold" not in sentences[0]
    assert not any("rough" in sentence for sentence in sentences)


def test_nothing_to_compare_with_and_other_queries_are_said() -> None:
    assert findings(comparison()) == ["Only one row, projection: there is nothing to compare it with."]
    assert findings(comparison(row("joint"))) == ["Not paired with projection, which ranked other queries: joint."]
    assert "other queries" in markdown(comparison(row("joint")))


def test_markdown_cells() -> None:
    lines = markdown(
        comparison(row("joint", difference=HOLDS), row("cross", difference=INSIDE), row("one", difference=UNKNOWN))
    ).splitlines()
    assert "| joint | +12.3 ± 1.3 (0.9) | +12.3 ± 1.3 (0.9) | +12.3 ± 1.3 (0.9) |" in lines
    assert sum("-1.2 ± 1.3 (0.9) ≈" in line for line in lines) == 1
    assert sum("+5.0 ± ? (0.9) ?" in line for line in lines) == 1
    assert "| joint | rerank@32 | 0.81 | 40,960 | 61.2 | 3.4 | 1,812 |" in lines
    (quality,) = [line for line in lines if line.startswith("| projection | 3 |")]
    assert quality.count("0.3 ± 1.2") == 8
    assert quality.endswith("| 300.0 ± 1.2 |")
    assert lines[0] == "R@K of this gallery."


def test_one_seed_has_no_spread_in_the_table() -> None:
    assert "| projection | 1 | 0.3 ± ? |" in markdown(comparison(n=1))


@pytest.mark.parametrize("label", ["a|b", "a\nb", "a\\|b", "<b>&", "[x](y)", "`a`", "*a*", "_a_", "~~a~~"])
def test_a_label_cannot_break_markdown(label: str) -> None:
    """Trap 36."""
    text = markdown(comparison(row(label, difference=HOLDS), notes=(f"Seed 0 twice: {label}",)))
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [4, 3, 4]
    for table in tables:
        bars = {len([i for i, c in enumerate(line) if c == "|" and not _escaped(line, i)]) for line in table}
        assert len(bars) == 1
    assert "<b>" not in text
    assert label not in text


def _escaped(line: str, position: int) -> bool:
    before = line[:position]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def test_a_plain_label_stays_readable() -> None:
    assert escape_markdown("cross_attention, optimizer.lr=1e-3") == "cross_attention, optimizer.lr=1e-3"
    assert escape_markdown("_a_b|c\\") == r"\_a_b\|c\\"


def test_csv_is_quoted_and_exact() -> None:
    """Trap 36."""
    label = 'joint, "lr"=1\n2'
    lines = list(csv.DictReader(io.StringIO(comma_separated(comparison(row(label, difference=HOLDS))))))
    assert [line["row"] for line in lines] == ["projection", label]
    assert [line["baseline"] for line in lines] == ["True", "False"]
    assert float(lines[1]["i2t_r1_mean"]) == 1 / 3
    assert float(lines[1]["rsum_difference"]) == 12.34
    assert lines[1]["rsum_difference_verdict"] == "holds"
    assert lines[0]["rsum_difference"] == ""
    assert lines[1]["seeds"] == "0 1 2"


def test_csv_leaves_empty_what_does_not_exist() -> None:
    (base, other) = csv.DictReader(io.StringIO(comma_separated(comparison(row("a", difference=UNKNOWN), n=1))))
    assert base["rsum_sd"] == ""
    assert other["rsum_difference_combined_error"] == ""
    assert other["rsum_difference_query_error"] == "0.9"


def test_the_terminal_shows_all_in_a_hundred_columns() -> None:
    """Long labels fold; no number is cut."""
    difference = Difference(-112.34, 10.9, 11.26)
    text = shown(comparison(row("cross_attention", rsum=412.3, difference=difference), notes=("Mind this.",)))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100
    for cell in (
        "cross_attention",
        "412.3 ± 1.2",
        "-112.3 ± 11.3 (10.9)",
        "rerank@32",
        "1,812",
        "Note: Mind this.",
    ):
        assert cell in text


def test_a_label_is_no_markup_for_the_terminal() -> None:
    """Trap 36."""
    text = shown(comparison(row("[red]a[/red][/b]", difference=HOLDS)))
    assert "[red]a[/red][/b]" in text
