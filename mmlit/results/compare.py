"""From the records below some directories to one comparison."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmlit.results.comparison import DIFFERENCES, METRICS, Comparison, Row, Spread
from mmlit.results.differences import Difference, Pairwise
from mmlit.results.labels import FIRST_AXIS, labels, silent_settings
from mmlit.results.likeness import UNLIKE, budget, differs, notes_on_runs, unlike, untrained
from mmlit.results.paired import Outcome, Queries, check_same_queries, hits_of, outcome_of
from mmlit.results.ranks import FILE_NAME as RANKS_NAME
from mmlit.results.ranks import Ranks, read_ranks
from mmlit.results.record import FILE_NAME as RECORD_NAME
from mmlit.results.rows import Group, Run, find_runs, group_runs
from mmlit.results.schema import Record
from mmlit.results.settings import trials
from mmlit.results.significance import pairwise

DEFAULT_BASELINE = "projection"
_ADDITIONS = frozenset({"auxiliary", "augmentation", "towers"})

_TOLERANCE = 0.05
"""Points by which a record's R@1 may be rounded away from its ranks'."""


def compare(directories: Sequence[Path], *, baseline: str | None = None, allow_unlike: bool = False) -> Comparison:
    """Compare all runs below some directories.

    A row is all runs whose settings are equal, apart from the seed and from what `settings.py` lists as
    matters of the machine. Of two runs with one seed the newer counts. The baseline comes first, the other
    rows by falling rsum, equal ones by label. Rows that were not trained here need not agree in data and budget.

    Args:
        directories: searched recursively for `result.json`.
        baseline: a row's label; by default `projection`, or else the first row in the order of paths.
        allow_unlike: compare rows that differ in split, gallery, protocol, data or budget, and say so.

    Raises:
        FileNotFoundError: a directory, any record, or a run's ranks are missing.
        ValueError: a record is broken, rows are unlike, no row has the baseline's label, or a run's ranks are
            not those of its record.
    """
    groups, notes = group_runs(find_runs(directories))
    names = _names(groups)
    notes += _notes(groups, names, allow_unlike)
    chosen = _baseline(groups, names, baseline)
    tests = _tests(groups)
    against = {metric: each.against(chosen) for metric, each in tests.items()}
    rows = [_row(group, name, _own(against, i)) for i, (group, name) in enumerate(zip(groups, names, strict=True))]
    order = sorted(range(len(rows)), key=lambda i: (i != chosen, -rows[i].metrics["rsum"].mean, rows[i].label))
    return Comparison(
        rows=tuple(rows[i] for i in order),
        baseline=names[chosen],
        subject=_subject([record for group in (groups[chosen], *groups) for record in group.records]),
        notes=tuple(notes),
        pairs=tests["rsum"].taken(order),
        groups=tuple(groups[i] for i in order),
    )


def _names(groups: Sequence[Group]) -> list[str]:
    """Label the rows; what all trained ones share is said only of one not trained here that has it otherwise."""
    trained = [group.identity.choices for group in groups if not untrained(group.records)]
    shared = set(trained[0].items()).intersection(*(each.items() for each in trained)) if trained else set()
    common = {axis: option for axis, option in shared if axis != FIRST_AXIS}
    return labels(
        [
            group.identity._replace(choices=common | group.identity.choices)
            if untrained(group.records)
            else group.identity
            for group in groups
        ],
        usual=common,
    )


def _notes(groups: Sequence[Group], names: Sequence[str], allow_unlike: bool) -> list[str]:
    records = {name: group.records for name, group in zip(names, groups, strict=True)}
    faults = unlike(records)
    if faults and not allow_unlike:
        hint = "Name the folders that belong together, or compare them all the same with --allow-unlike"
        raise ValueError(f"unlike rows: {'. '.join([*faults, hint])}")
    # Of a row that was not trained here, no setting of training says anything.
    trained = {name: group.identity for name, group in zip(names, groups, strict=True) if not untrained(group.records)}
    silent = silent_settings(list(trained.values()), list(trained))
    return [
        *(f"{UNLIKE}: {fault}." for fault in faults),
        *notes_on_runs(records),
        *(f"{differs(key, having)}." for key, having in silent.items()),
    ]


def _baseline(groups: Sequence[Group], names: Sequence[str], wanted: str | None) -> int:
    if wanted is None:
        chose = [group.identity.choices.get(FIRST_AXIS) for group in groups]
        named = [i for i, name in enumerate(names) if DEFAULT_BASELINE in (name, chose[i])]
        # otherwise one to which nothing was added, if there is one
        named = named or [i for i, group in enumerate(groups) if not _ADDITIONS & group.identity.choices.keys()]
        return named[0] if named else 0
    if wanted not in names:
        raise ValueError(f"no row {wanted!r} to be the baseline; the rows are: {'; '.join(names)}")
    return names.index(wanted)


def _tests(groups: Sequence[Group]) -> dict[str, Pairwise]:
    """Test all pairs of rows that ranked the same queries, on every metric of `DIFFERENCES`."""
    asked = [tuple(group.identity.facts[fact] for fact in ("gallery", "protocol")) for group in groups]
    kinds = {kind: place for place, kind in reversed(list(enumerate(asked)))}
    queries: dict[int, Queries] = {}
    outcomes: dict[str, list[Outcome]] = {metric: [] for metric in DIFFERENCES}
    for group, kind in zip(groups, asked, strict=True):
        first = groups[kinds[kind]].runs[0].directory
        try:
            hits = hits_of([_ranks(run) for run in group.runs])
            check_same_queries(queries.setdefault(kinds[kind], hits.queries), hits.queries)
            for metric, found in outcomes.items():
                found.append(outcome_of(hits, metric, untrained=untrained(group.records)))
        except ValueError as fault:
            places = dict.fromkeys(str(place) for place in (first, *(run.directory for run in group.runs)))
            raise ValueError(f"{', '.join(places)}: {fault}") from fault
    return {metric: pairwise(found, [kinds[kind] for kind in asked]) for metric, found in outcomes.items()}


def _ranks(run: Run) -> Ranks:
    """Read a run's ranks, and make sure that they are those of the record beside them."""
    ranks = read_ranks(run.directory, tops=False)
    for metric, rank in (("i2t_r1", ranks.i2t_rank), ("t2i_r1", ranks.t2i_rank)):
        own, said = 100 * float(np.mean(rank == 1)), getattr(run.record.metrics, metric)
        if abs(own - said) > _TOLERANCE:
            path = run.directory / RANKS_NAME
            raise ValueError(f"{path} gives {metric} {own:.2f}, {RECORD_NAME} beside it {said:.2f}")
    return ranks


def _own(against: dict[str, list[Difference | None]], row: int) -> dict[str, Difference] | None:
    """A row's differences to the baseline, if it has any."""
    found = {metric: own for metric, each in against.items() if (own := each[row]) is not None}
    return found or None


def _row(group: Group, label: str, differences: dict[str, Difference] | None) -> Row:
    records = group.records
    first = records[0]
    return Row(
        label=label,
        seeds=tuple(record.seed for record in records),
        metrics={metric: _metric(group, metric) for metric in METRICS},
        differences=differences,
        trials=trials(first),
        scored=first.scored,
        split=first.split,
        gallery=(first.gallery.images, first.gallery.texts),
        parameters=first.parameters.total,
        trainable=first.parameters.trainable,
        pairs_seen=budget(records),
        fit_seconds=_spread([record.cost.fit_seconds for record in records]),
        evaluation_seconds=_spread([record.cost.evaluation_seconds for record in records]),
        peak_memory=_spread([record.cost.peak_memory_mib for record in records]),
    )


def _metric(group: Group, metric: str) -> Spread:
    return _spread([getattr(record.metrics, metric) for record in group.records])


def _spread(values: list[float]) -> Spread:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), sd, len(values))


def _subject(records: Sequence[Record]) -> str:
    first = records[0]
    seen = max(record.budget.pairs_seen for record in records)
    gallery = f"{first.gallery.images:,} images and {first.gallery.texts:,} texts"
    return (
        f"R@K of this gallery of {gallery}, split {first.split}, protocol {first.protocol.name}; "
        f"{seen:,} pairs seen in training."
    )
