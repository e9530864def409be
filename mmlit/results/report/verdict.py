"""Which strategy to use, and why, in words: the best, the best of the cheap, and how sure that is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmlit.results.comparison import Comparison, Row
from mmlit.results.differences import LEAST_SEEDS, Difference
from mmlit.results.likeness import UNLIKE
from mmlit.results.words import READABLE, listed

AS_CHEAP = 1.5
"""Seconds that differ by less than this factor count as equal: machines are busy, and small ones most."""


class Pick(NamedTuple):
    """A row worth choosing: for what, its place among the rows, its numbers in a line, how sure it is in another."""

    purpose: str
    row: int
    facts: str
    sure: str


class Reason(NamedTuple):
    """What a sentence is about, in a few words, and the sentence."""

    lead: str
    text: str


class Verdict(NamedTuple):
    """A headline, one or two rows to choose from, and the reasons as sentences."""

    headline: str
    picks: tuple[Pick, ...]
    reasons: tuple[Reason, ...]


def query_milliseconds(row: Row) -> float:
    """What one query takes: the evaluation, encoding included, over all images and texts, each of which asks once."""
    return 1000 * row.evaluation_seconds.mean / sum(row.gallery)


def verdict(comparison: Comparison) -> Verdict:
    """Choose the row of the highest rsum, and the best of those whose queries are about as cheap as any.

    Only rows that ranked the baseline's queries are chosen from. What does not hold is never called equal.
    """
    rows = comparison.rows
    alike = [i for i in range(len(rows)) if i == 0 or not np.isnan(comparison.pairs.value[i, 0])]
    if len(alike) < 2:
        reason = Reason("Nothing to compare.", "There is no second row that ranked the same queries.")
        return Verdict(f"Nothing to choose from: {rows[0].label}", (_pick("Only row", rows, 0, ""),), (reason,))
    ordered = sorted(alike, key=lambda i: -rows[i].metrics["rsum"].mean)
    best = ordered[0]
    limit = AS_CHEAP * min(query_milliseconds(rows[i]) for i in alike)
    value = next(i for i in ordered if query_milliseconds(rows[i]) <= limit)
    leads = {i: own for i in ordered[1:] if (own := comparison.pairs.against(i)[best]) is not None}
    sure = f"Its lead over {rows[ordered[1]].label}, the next: {_sureness(leads[ordered[1]])}"
    reasons = [*_cautions(comparison), _quality(rows, best), *_evidence(rows, best, leads)]
    if value == best:
        picks: tuple[Pick, ...] = (_pick("Best retrieval, and among the fastest to answer", rows, best, sure),)
        headline = f"Use {rows[best].label}: it ranks highest, and none answers queries much faster"
    else:
        loss = f"What it gives up, {leads[value].value:.1f} points: {_sureness(leads[value])}"
        picks = (_pick("Best retrieval", rows, best, sure), _pick("Best of the fast ones", rows, value, loss))
        headline = _trade(rows, best, value, shown=leads[ordered[1]].methods_hold is True)
        reasons.append(_cost(rows, best, value))
    return Verdict(headline, picks, (*reasons, *_beaten(comparison, alike)))


def _pick(purpose: str, rows: Sequence[Row], row: int, sure: str) -> Pick:
    own = rows[row]
    facts = (
        f"rsum {own.metrics['rsum'].mean:.1f} of 600 · {duration(own.fit_seconds.mean)} of training · "
        f"{milliseconds(query_milliseconds(own))} per query"
    )
    return Pick(purpose, row, facts, sure)


def _sureness(own: Difference) -> str:
    if own.methods_hold:
        return "shown for the method"
    if own.checkpoints_hold:
        return "shown for these trained models, not for the method"
    return "not shown, may be chance"


def _trade(rows: Sequence[Row], best: int, value: int, *, shown: bool) -> str:
    most, fast = rows[best].metrics["rsum"].mean, rows[value].metrics["rsum"].mean
    place = "ranks best" if shown else "has the highest rsum here"
    share = 100 * fast / most if most else 100
    return (
        f"{rows[best].label} {place}; {rows[value].label} reaches {share:.0f} % of its score and answers "
        f"{_times(query_milliseconds(rows[best]), query_milliseconds(rows[value]))} as fast"
    )


def _quality(rows: Sequence[Row], best: int) -> Reason:
    own = rows[best].metrics
    pictures, captions = (f"{own[name].mean:.1f}\N{NO-BREAK SPACE}%" for name in ("i2t_r1", "t2i_r1"))
    text = (
        f"{rows[best].label} has the highest score: its six recalls (at 1, 5 and 10, both ways) add up to "
        f"{own['rsum'].mean:.1f} of 600, the rsum. It finds the right caption of a picture first in {pictures} of "
        f"cases, the right picture of a caption in {captions}."
    )
    return Reason("Quality.", text)


def _evidence(rows: Sequence[Row], best: int, leads: dict[int, Difference]) -> list[Reason]:
    """The best row's lead over each other one, by how much of it is shown."""

    def lead_over(which: Sequence[int]) -> str:
        named = [f"{rows[i].label} ({leads[i].value:+.1f})" for i in which]
        return f"The lead of {rows[best].label} over {_few(named)}"

    methods = [i for i, own in leads.items() if own.methods_hold]
    checkpoints = [i for i, own in leads.items() if own.checkpoints_hold and not own.methods_hold]
    neither = [i for i, own in leads.items() if not own.checkpoints_hold]
    told = []
    if methods:
        told.append(
            Reason("Shown for the method.", f"{lead_over(methods)} is to be expected of another training, too.")
        )
    if checkpoints:
        judged = any(leads[i].methods_hold is False for i in checkpoints)
        why = "more seeds or a larger lead would be needed" if judged else f"it takes {LEAST_SEEDS} seeds to say that"
        text = (
            f"{lead_over(checkpoints)} is to be expected on other images like these, but is not shown for another "
            f"training: {why}."
        )
        told.append(Reason("Shown for these trained models only.", text))
    if neither:
        told.append(Reason("Not shown.", f"{lead_over(neither)} may be chance. That does not make them equal."))
    return told


def _cost(rows: Sequence[Row], best: int, value: int) -> Reason:
    slow, fast = rows[best], rows[value]
    text = (
        f"A query takes {milliseconds(query_milliseconds(fast))} with {fast.label} and "
        f"{milliseconds(query_milliseconds(slow))} with {slow.label}, training {duration(fast.fit_seconds.mean)} and "
        f"{duration(slow.fit_seconds.mean)}. If that matters more than "
        f"{slow.metrics['rsum'].mean - fast.metrics['rsum'].mean:.1f} points of rsum, take {fast.label}."
    )
    return Reason("What quality costs.", text)


def _beaten(comparison: Comparison, alike: Sequence[int]) -> list[Reason]:
    """Rows that another one beats, as these checkpoints, while it trains and answers about as fast or faster."""
    rows = comparison.rows
    costs = [(row.fit_seconds.mean, query_milliseconds(row)) for row in rows]
    beaten = [
        rows[i].label
        for i in alike
        if any(
            own is not None
            and own.value > 0
            and own.checkpoints_hold
            and all(theirs <= AS_CHEAP * mine for theirs, mine in zip(costs[other], costs[i], strict=True))
            for other, own in enumerate(comparison.pairs.against(i))
        )
    ]
    if not beaten:
        return []
    each = "another row ranks" if len(beaten) == 1 else "each time another row ranks"
    text = f"{_few(beaten)}: {each} better, shown for these trained models, at about the same cost or less."
    return [Reason("No reason to choose here.", text)]


def _cautions(comparison: Comparison) -> list[Reason]:
    told = []
    if any(note.startswith(UNLIKE) for note in comparison.notes):
        told.append(Reason("Mind the notes.", "The rows are unlike: differences are not due to the strategy alone."))
    if len({row.trials for row in comparison.rows}) > 1:
        told.append(
            Reason("Mind the options.", "Some rows were tuned, by a number of trials that others did not have.")
        )
    few = [row for row in comparison.rows if len(row.seeds) < LEAST_SEEDS and row.pairs_seen[1] > 0]
    if few:
        told_of = f"{len(few)} of {len(comparison.rows)} rows"
        text = f"{told_of} have fewer than {LEAST_SEEDS}: nothing is shown of them as methods."
        told.append(Reason("Mind the seeds.", text))
    return told


def _few(labels: Sequence[str]) -> str:
    """A sentence that names many rows is not read."""
    return listed(labels, most=READABLE if len(labels) <= READABLE else 4)


def _times(more: float, less: float) -> str:
    if less <= 0:
        return "many times"
    return f"{more / less:.0f} times" if more / less >= 9.5 else f"{more / less:.1f} times"


def duration(seconds: float) -> str:
    """Seconds for a reader: `12.3 s`, `3.4 min`, `2.1 h`."""
    if seconds < 600:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def milliseconds(value: float) -> str:
    """Milliseconds with about two digits."""
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"
