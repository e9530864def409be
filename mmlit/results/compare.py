"""From the records below some directories to one comparison."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmlit.results.comparison import DIFFERENCES, METRICS, Comparison, Difference, Row, Spread
from mmlit.results.labels import FIRST_AXIS, labels, silent_settings
from mmlit.results.likeness import budget, differs, notes_on_runs, unlike
from mmlit.results.paired import Hits, mean_hits, paired_difference
from mmlit.results.ranks import FILE_NAME as RANKS_NAME
from mmlit.results.ranks import Ranks, read_ranks
from mmlit.results.record import FILE_NAME as RECORD_NAME
from mmlit.results.rows import Group, Run, find_runs, group_runs
from mmlit.results.schema import Record

DEFAULT_BASELINE = "projection"

_TOLERANCE = 0.05
"""Points by which a record's R@1 may be rounded away from its ranks'."""


def compare(directories: Sequence[Path], *, baseline: str | None = None, allow_unlike: bool = False) -> Comparison:
    """Compare all runs below some directories.

    A row is all runs whose settings are equal, apart from the seed and from what `settings.py` lists as
    matters of the machine. Of two runs with one seed the newer counts. The baseline comes first, the other
    rows by falling rsum, equal ones by label.

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
    names = labels([group.identity for group in groups])
    notes += _notes(groups, names, allow_unlike)
    chosen = _baseline(groups, names, baseline)
    base_hits = _hits(groups[chosen])
    rows = []
    for group, name in zip(groups, names, strict=True):
        other = name != names[chosen]
        rows.append(_row(group, name, _differences(group, groups[chosen], base_hits) if other else None))
    rows.sort(key=lambda row: (row.label != names[chosen], -row.metrics["rsum"].mean, row.label))
    return Comparison(tuple(rows), names[chosen], _subject(groups[chosen].records[0]), tuple(notes))


def _notes(groups: Sequence[Group], names: Sequence[str], allow_unlike: bool) -> list[str]:
    records = {name: group.records for name, group in zip(names, groups, strict=True)}
    faults = unlike(records)
    if faults and not allow_unlike:
        raise ValueError(f"unlike rows: {'. '.join(faults)} (--allow-unlike compares them all the same)")
    silent = silent_settings([group.identity for group in groups], names)
    return [
        *(f"Unlike rows: {fault}." for fault in faults),
        *notes_on_runs(records),
        *(f"{differs(key, having)}." for key, having in silent.items()),
    ]


def _baseline(groups: Sequence[Group], names: Sequence[str], wanted: str | None) -> int:
    if wanted is None:
        chose = [group.identity.choices.get(FIRST_AXIS) for group in groups]
        named = [i for i, name in enumerate(names) if DEFAULT_BASELINE in (name, chose[i])]
        return named[0] if named else 0
    if wanted not in names:
        raise ValueError(f"no row {wanted!r} to be the baseline; the rows are: {'; '.join(names)}")
    return names.index(wanted)


def _hits(group: Group) -> Hits:
    ranks = [_ranks(run) for run in group.runs]
    try:
        return mean_hits(ranks)
    except ValueError as error:
        raise ValueError(f"{', '.join(str(run.directory) for run in group.runs)}: {error}") from error


def _ranks(run: Run) -> Ranks:
    """Read a run's ranks, and make sure that they are those of the record beside them."""
    ranks = read_ranks(run.directory)
    for metric, rank in (("i2t_r1", ranks.i2t_rank), ("t2i_r1", ranks.t2i_rank)):
        own, said = 100 * float(np.mean(rank == 1)), getattr(run.record.metrics, metric)
        if abs(own - said) > _TOLERANCE:
            path = run.directory / RANKS_NAME
            raise ValueError(f"{path} gives {metric} {own:.2f}, {RECORD_NAME} beside it {said:.2f}")
    return ranks


def _differences(group: Group, base: Group, base_hits: Hits) -> dict[str, Difference] | None:
    if any(group.identity.facts[fact] != base.identity.facts[fact] for fact in ("gallery", "protocol")):
        return None
    hits = _hits(group)
    found = {}
    for metric in DIFFERENCES:
        try:
            value, error = paired_difference(hits, base_hits, metric)
        except ValueError as fault:
            raise ValueError(f"{group.runs[0].directory}, {base.runs[0].directory}: {fault}") from fault
        found[metric] = Difference(value, error, _combined(error, metric, group, base))
    return found


def _combined(error: float, metric: str, *groups: Group) -> float | None:
    """Add the error of the rows' means over seeds; None where one seed leaves it unknown."""
    variance = error**2
    for group in groups:
        spread = _metric(group, metric)
        if spread.sd is None:
            return None
        # Seeds count as independent draws: the same seed number shares little between two methods.
        variance += spread.sd**2 / spread.n
    return float(np.sqrt(variance))


def _row(group: Group, label: str, differences: dict[str, Difference] | None) -> Row:
    records = group.records
    first = records[0]
    return Row(
        label=label,
        seeds=tuple(record.seed for record in records),
        metrics={metric: _metric(group, metric) for metric in METRICS},
        differences=differences,
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


def _subject(record: Record) -> str:
    gallery = f"{record.gallery.images:,} images and {record.gallery.texts:,} texts"
    return (
        f"R@K of this gallery of {gallery}, split {record.split}, protocol {record.protocol.name}; "
        f"{record.budget.pairs_seen:,} pairs seen in training."
    )
