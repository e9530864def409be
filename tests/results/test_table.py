"""What a reader sees: cells, sentences, and labels that cannot break them."""

import csv
import io

import pytest
from results.made_rows import equal_pairs, no_pairs
from rich.console import Console

from mmlit.results.comparison import DIFFERENCES, METRICS, Comparison, Row, Spread
from mmlit.results.differences import Difference, Pairwise
from mmlit.results.spreadsheet import comma_separated
from mmlit.results.table import escape_markdown, grids, markdown, terminal
from mmlit.results.words import findings


def row(
    label: str, *, rsum: float = 300.0, n: int = 3, difference: Difference | None = None, trials: int | None = None
) -> Row:
    sd = 1.25 if n > 1 else None
    return Row(
        label=label,
        seeds=tuple(range(n)),
        metrics={name: Spread(rsum if name == "rsum" else 1 / 3, sd, n) for name in METRICS},
        differences=dict.fromkeys(DIFFERENCES, difference) if difference else None,
        trials=trials,
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


def comparison(*others: Row, notes: tuple[str, ...] = (), n: int = 3, pairs: Pairwise | None = None) -> Comparison:
    rows = (row("projection", n=n), *others)
    if pairs is None:
        paired = len(others) > 0 and all(other.differences for other in others)
        pairs = equal_pairs(len(rows), checkpoints=0.01, methods=0.2) if paired else no_pairs(len(rows))
    return Comparison(rows, "projection", "R@K of this gallery.", notes, pairs)


def shown(given: Comparison) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(terminal(given))
    return file.getvalue()


HOLDS = Difference(12.34, 0.9, 0.0004, 1.26, 0.0123, None)
CHECKPOINTS_ONLY = Difference(4.32, 0.9, 0.03, 2.1, 0.0501, 4.41)
NEITHER = Difference(-1.2, 0.9, 0.71, 1.3, 0.9999, 6.5)
UNKNOWN = Difference(5.0, 0.9, 0.001, None, None, None)


def test_sentences_keep_checkpoints_and_methods_apart() -> None:
    given = comparison(
        row("joint", difference=HOLDS),
        row("contrastive", difference=CHECKPOINTS_ONLY),
        row("cross", difference=NEITHER),
        row("one", difference=UNKNOWN, n=1),
    )
    sentences = findings(given)
    assert sentences[0] == (
        "(a) These checkpoints, rsum against projection: joint (+12.3), contrastive (+4.3) and one (+5.0) hold; "
        "cross (-1.2) does not hold."
    )
    assert sentences[2].startswith("(a) These checkpoints, t2i R@1 against projection: ")
    assert sentences[3] == (
        "(b) The methods, rsum against projection: joint (+12.3) holds; contrastive (+4.3, would need 4.5) and cross "
        "(-1.2, would need 6.5) are not shown; one (+5.0) cannot be judged, seeds are too few."
    )
    assert sentences[6] == "All 10 pairs of rows, rsum: 10 hold as checkpoints (a), 0 as methods (b)."
    assert "corrected after Holm for all pairs of rows, is at most 0.05" in sentences[7]
    assert sentences[8].startswith("(a) asks whether these very checkpoints differ")
    assert sentences[9].startswith("(b) asks whether the methods differ if training is repeated with other seeds")
    assert sentences[10].startswith("Too few seeds for (b), which needs 3: one (1).")
    assert len(sentences) == 11


def test_too_few_seeds_are_said_and_not_judged() -> None:
    pairs = equal_pairs(2, checkpoints=0.01, methods=float("nan"))
    sentences = findings(comparison(row("joint", n=2, difference=UNKNOWN), n=2, pairs=pairs))
    assert sentences[3] == "(b) The methods, rsum against projection: joint (+5.0) cannot be judged, seeds are too few."
    assert sentences[6].endswith("0 as methods (b), of the 0 with enough seeds.")
    assert "Too few seeds for (b), which needs 3: projection (2) and joint (2)." in sentences[-1]


def test_captions_say_what_is_drawn_anew_and_what_p_is_corrected_for() -> None:
    _, checkpoints, methods, _ = grids(comparison(row("joint", difference=HOLDS)), with_spread=set())
    corrected = "p is corrected after Holm over all pairs of rows."
    assert checkpoints.title.endswith(f"± standard error over images; p. Whole images are drawn anew; {corrected}")
    assert methods.title.endswith(f"what it would need. Seeds are drawn anew, too; {corrected}")
    assert methods.headings[:4] == ["row", "rsum", "p", "would need"]


def test_a_difference_that_cannot_be_is_none() -> None:
    """With few seeds and many rows, more would be asked than the metric's range."""
    beyond, within = (Difference(3.0, 0.9, 0.01, 9.0, 0.9, least) for least in (123.0, 99.94))
    lines = findings(comparison(row("joint", difference=beyond), row("cross", difference=within)))
    assert lines[3].endswith("joint (+3.0, would need 123.0) and cross (+3.0, would need 100.0) are not shown.")
    assert lines[4].endswith("joint (+3.0, no difference would do) and cross (+3.0, would need 100.0) are not shown.")
    assert "| joint | +3.0 ± 9.0 | 0.900 | 123.0 | +3.0 ± 9.0 | 0.900 | none |" in markdown(
        comparison(row("joint", difference=beyond))
    )


def test_one_run_of_published_weights_is_not_too_few() -> None:
    published = row("clip", n=1, difference=HOLDS)._replace(pairs_seen=(0, 0))
    assert not any("Too few" in sentence for sentence in findings(comparison(published)))


def test_nothing_to_compare_with_and_other_queries_are_said() -> None:
    assert findings(comparison()) == ["Only one row, projection: there is nothing to compare it with."]
    assert findings(comparison(row("joint"))) == ["Not paired with projection, which ranked other queries: joint."]
    text = markdown(comparison(row("joint")))
    assert "| joint | other queries |  | other queries |" in text


def test_hundreds_of_rows_are_named_in_the_tables_and_not_in_the_prose() -> None:
    others = [row(f"row {i}", difference=(HOLDS, CHECKPOINTS_ONLY)[i % 2]) for i in range(1, 300)]
    given = comparison(*others)
    sentences = findings(given)
    assert max(map(len, sentences)) < 600
    assert "row 7 (+4.3) and 292 others hold" in sentences[0]
    assert sentences[6] == (
        "All 44,850 pairs of rows, rsum: 44,850 hold as checkpoints (a), 0 as methods (b); --baseline ROW shows "
        "another row's."
    )
    assert not any(grid.title.startswith("All pairs") for grid in grids(given, with_spread=set()))
    assert markdown(given).count("| row 299 |") == 4


def test_markdown_cells() -> None:
    lines = markdown(
        comparison(
            row("joint", difference=HOLDS),
            row("cross", difference=NEITHER, trials=9),
            row("contrastive", difference=CHECKPOINTS_ONLY),
            row("one", difference=UNKNOWN),
        )
    ).splitlines()
    cells = {"joint": "+12.3 ± 0.9 | &lt;0.001", "cross": "-1.2 ± 0.9 | 0.710", "one": "+5.0 ± 0.9 | 0.001"}
    cells_of_methods = {
        "joint": "+12.3 ± 1.3 | 0.013 | ",
        "cross": "-1.2 ± 1.3 | 1 | 6.5",
        "contrastive": "+4.3 ± 2.1 | 0.051 | 4.5",
        "one": "+5.0 ± – | – | –",
    }
    for each in (cells, cells_of_methods):
        for label, cell in each.items():
            assert f"| {label} | {' | '.join([cell] * 3)} |" in lines
    assert "| joint | rerank@32 | default | 0.81 | 40,960 | 61.2 | 3.4 | 1,812 |" in lines
    assert "| cross | rerank@32 | tuned (9) | 0.81 | 40,960 | 61.2 | 3.4 | 1,812 |" in lines
    (quality,) = [line for line in lines if line.startswith("| projection | 3 |")]
    assert quality.count("0.3 ± 1.2") == 8
    assert quality.endswith("| 300.0 ± 1.2 |")
    assert lines[0] == "R@K of this gallery."


def test_all_pairs_are_set_against_one_another() -> None:
    pairs = equal_pairs(3, checkpoints=0.01, methods=0.2)
    pairs.methods[0, 2] = pairs.methods[2, 0] = 0.04
    pairs.checkpoints[1, 2] = pairs.checkpoints[2, 1] = 0.3
    given = comparison(row("joint", difference=HOLDS), row("cross", difference=HOLDS), pairs=pairs)
    (grid,) = [grid for grid in grids(given, with_spread=set()) if grid.title.startswith("All pairs, rsum")]
    assert grid.headings == ["row", "2", "3"]
    assert grid.rows == [["1 projection", "-1.0 a", "-2.0 ab"], ["2 joint", "", "-1.0"], ["3 cross", "", ""]]
    pairs.checkpoints[1, 2] = pairs.checkpoints[2, 1] = float("nan")
    assert "| 2 joint |  | – |" in markdown(given)
    two = comparison(row("joint", difference=HOLDS))
    assert not any(grid.title.startswith("All pairs") for grid in grids(two, with_spread=set()))


def test_one_seed_has_no_spread_in_the_table() -> None:
    assert "| projection | 1 | 0.3 ± – |" in markdown(comparison(n=1))


@pytest.mark.parametrize("label", ["a|b", "a\nb", "a\\|b", "<b>&", "[x](y)", "`a`", "*a*", "_a_", "~~a~~"])
def test_a_label_cannot_break_markdown(label: str) -> None:
    """Trap 36."""
    text = markdown(comparison(row(label, difference=HOLDS), notes=(f"Seed 0 twice: {label}",)))
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [4, 3, 3, 4]
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
    lines = list(csv.DictReader(io.StringIO(comma_separated(comparison(row(label, difference=HOLDS, trials=9))))))
    assert [line["row"] for line in lines] == ["projection", label]
    assert [line["baseline"] for line in lines] == ["True", "False"]
    assert float(lines[1]["i2t_r1_mean"]) == 1 / 3
    assert float(lines[1]["rsum_difference"]) == 12.34
    assert float(lines[1]["rsum_difference_image_error"]) == 0.9
    assert float(lines[1]["rsum_difference_checkpoints_p"]) == 0.0004
    assert lines[1]["rsum_difference_methods_hold"] == "True"
    assert lines[0]["rsum_difference"] == ""
    assert lines[1]["seeds"] == "0 1 2"
    assert lines[1]["trials"] == "9"


def test_csv_leaves_empty_what_does_not_exist() -> None:
    (base, other) = csv.DictReader(io.StringIO(comma_separated(comparison(row("a", difference=UNKNOWN), n=1))))
    assert base["rsum_sd"] == base["trials"] == ""
    for name in ("total_error", "methods_p", "methods_hold", "methods_least"):
        assert other[f"rsum_difference_{name}"] == ""
    assert other["rsum_difference_image_error"] == "0.9"


def test_the_terminal_shows_all_in_a_hundred_columns() -> None:
    """Long labels fold; no number is cut."""
    difference = Difference(-112.34, 10.9, 0.0001, 111.26, 0.1234, 123.4)
    others = [row("cross_attention", rsum=412.3, difference=difference, trials=16)]
    others += [row(f"joint {i}", difference=difference) for i in range(6)]
    pairs = equal_pairs(8, checkpoints=0.01, methods=0.01)
    pairs.value[:] *= 100
    text = shown(comparison(*others, notes=("Mind this.",), pairs=pairs))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100
    for cell in (
        "cross_attention",
        "412.3 ± 1.2",
        "-112.3 ± 10.9",
        "-112.3 ± 111.3",
        "0.124",
        "123.4",
        "-700.0 ab",
        "tuned (16)",
        "rerank@32",
        "1,812",
        "Note: Mind this.",
    ):
        assert cell in text


def test_a_label_is_no_markup_for_the_terminal() -> None:
    """Trap 36."""
    text = shown(comparison(row("[red]a[/red][/b]", difference=HOLDS)))
    assert "[red]a[/red][/b]" in text
