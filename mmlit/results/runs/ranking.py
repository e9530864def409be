"""Which run is best: sorted runs, and the best of each group."""

from collections.abc import Sequence

from mmlit.results.likeness import differs
from mmlit.results.runs.folders import Folder
from mmlit.results.runs.options import check_known, falls, is_number, options_of
from mmlit.results.settings import facts

_MUST_AGREE = ("split", "gallery", "protocol")


def sorted_by(folders: Sequence[Folder], metric: str) -> list[Folder]:
    """The best first; of what is no metric, the least. Runs without it come last, in the order given.

    Raises:
        ValueError: no run has it.
    """
    table = [options_of(folder) for folder in folders]
    check_known(metric, table, option="--sort")
    rises = any(folder.record and metric in folder.record.metrics.model_dump() for folder in folders)
    sign = -1 if rises and not falls(metric) else 1

    def place(number: int) -> tuple[bool, bool, float, str]:
        value = table[number].get(metric)
        return value is None, not is_number(value), sign * value if is_number(value) else 0.0, str(value)

    return [folders[number] for number in sorted(range(len(folders)), key=place)]


def best(folders: Sequence[Folder], *, metric: str, by: Sequence[str]) -> dict[tuple[str, ...], list[Folder]]:
    """The best finished run of each group, and those that equal it.

    Args:
        folders: runs; those that are not finished do not count.
        metric: what decides.
        by: options; runs that have the same values of them are a group.

    Raises:
        ValueError: no finished run has the metric or an option, or runs of one group differ in split, gallery or
            protocol, so that their numbers are not of the same thing.
    """
    groups = grouped(folders, metric=metric, by=by)
    found = {}
    for group, runs in groups.items():
        if unlike := _unlike([folder for folder, _ in runs]):
            name = f" of {', '.join(group)}" if group else ""
            raise ValueError(
                f"the best{name} would be of unlike runs: {unlike}; choose with --where or --by, or name one folder"
            )
        first = runs[0][1]
        found[group] = [folder for folder, value in runs if value == first]
    return found


def grouped(
    folders: Sequence[Folder], *, metric: str, by: Sequence[str]
) -> dict[tuple[str, ...], list[tuple[Folder, float]]]:
    """Finished runs with their value of a metric, the best first, by their values of some options.

    Raises:
        ValueError: no finished run has the metric, or one of the options.
    """
    finished = [folder for folder in folders if folder.record]
    table = [options_of(folder) for folder in finished]
    for key, option in ((metric, "--metric"), *((key, "--by") for key in by)):
        check_known(key, table, option=option)
    groups: dict[tuple[str, ...], list[tuple[Folder, float]]] = {}
    for folder, options in zip(finished, table, strict=True):
        if is_number(options.get(metric)):
            group = tuple(str(options.get(key)) for key in by)
            groups.setdefault(group, []).append((folder, float(options[metric])))
    if finished and not groups:
        raise ValueError(f"--metric {metric}: is no number of any run")
    for runs in groups.values():
        runs.sort(key=lambda run: run[1], reverse=not falls(metric))
    return dict(sorted(groups.items()))


def _unlike(folders: Sequence[Folder]) -> str:
    """The first respect in which the runs' numbers are not of the same thing, naming the runs."""
    for matter in _MUST_AGREE:
        having: dict[str, list[str]] = {}
        for folder in folders:
            if folder.record:
                having.setdefault(facts(folder.record)[matter], []).append(folder.directory.name)
        if len(having) > 1:
            return differs(matter, having)
    return ""
