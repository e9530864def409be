"""Which row the report recommends, and what it says of how sure that is."""

from results.made_rows import equal_pairs, no_pairs

from mmlit.results.comparison import METRICS, Comparison, Row, Spread
from mmlit.results.report.verdict import verdict


def row(label: str, rsum: float, *, fit: float = 40.0, evaluation: float = 1.2, seeds: int = 3) -> Row:
    return Row(
        label=label,
        seeds=tuple(range(seeds)),
        metrics={name: Spread(rsum if name == "rsum" else 10.0, 1.0, seeds) for name in METRICS},
        differences=None,
        trials=None,
        scored="full",
        split="test",
        gallery=(200, 1000),
        parameters=1,
        trainable=1,
        pairs_seen=(10, 10),
        fit_seconds=Spread(fit, 1.0, seeds),
        evaluation_seconds=Spread(evaluation, 1.0, seeds),
        peak_memory=Spread(1.0, None, seeds),
    )


def compared(*rows: Row, checkpoints: float = 0.01, methods: float = 0.2, notes: tuple[str, ...] = ()) -> Comparison:
    """Rows in ascending order of rsum, one point apart as `equal_pairs` has them."""
    pairs = equal_pairs(len(rows), checkpoints=checkpoints, methods=methods)
    return Comparison(rows, rows[0].label, "", notes, pairs)


def told(comparison: Comparison) -> str:
    found = verdict(comparison)
    return " ".join([found.headline, *(f"{reason.lead} {reason.text}" for reason in found.reasons)])


def test_the_best_is_recommended_alone_if_it_answers_about_as_fast() -> None:
    found = verdict(compared(row("projection", 100), row("contrastive", 130, evaluation=1.7)))
    assert [pick.row for pick in found.picks] == [1]
    assert found.headline.startswith("Use contrastive: ")


def test_a_slow_best_stands_beside_the_best_of_the_fast() -> None:
    rows = (row("projection", 100), row("contrastive", 130), row("attention", 140, fit=120, evaluation=12.0))
    found = verdict(compared(*rows))
    assert [pick.row for pick in found.picks] == [2, 1]
    other = "contrastive reaches 93 % of its score and answers 10 times as fast"
    assert found.headline == f"attention has the highest rsum here; {other}"
    assert verdict(compared(*rows, methods=0.01)).headline == f"attention ranks best; {other}"
    assert "rsum 130.0 of 600 · 40 s of training · 1.0 ms per query" in found.picks[1].facts
    assert "If that matters more than 10.0 points of rsum, take contrastive." in told(compared(*rows))


def test_what_is_shown_is_kept_apart() -> None:
    rows = (row("projection", 100), row("contrastive", 130))
    method = told(compared(*rows, checkpoints=0.001, methods=0.01))
    assert "Shown for the method." in method
    assert "only" not in method
    models = told(compared(*rows, checkpoints=0.01, methods=0.2))
    assert "Shown for these trained models only." in models
    assert "more seeds or a larger lead would be needed" in models
    neither = told(compared(*rows, checkpoints=0.3, methods=0.4))
    assert "Not shown." in neither
    assert "Shown for" not in neither
    assert "may be chance. That does not make them equal." in neither
    assert "No reason to choose" not in neither


def test_too_few_seeds_are_told() -> None:
    rows = (row("projection", 100, seeds=1), row("contrastive", 130, seeds=1))
    text = told(compared(*rows, checkpoints=0.01, methods=float("nan")))
    assert "it takes 3 seeds to say that" in text
    assert "2 of 2 rows have fewer than 3" in text


def test_a_row_that_another_beats_at_no_higher_cost_is_named() -> None:
    rows = (row("projection", 100), row("contrastive", 130), row("attention", 140, evaluation=12.0))
    assert "projection: another row ranks better" in told(compared(*rows))
    assert "contrastive: another" not in told(compared(*rows)), "attention is slower"


def test_rows_of_other_queries_are_not_chosen() -> None:
    rows = (row("projection", 100), row("other gallery", 500))
    found = verdict(Comparison(rows, "projection", "", (), no_pairs(2)))
    assert found.headline == "Nothing to choose from: projection"
    unlike = told(compared(row("a", 1), row("b", 2), notes=("Unlike rows: data differs.",)))
    assert "not due to the strategy alone" in unlike
