"""What a check found, for people and for programs."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmlit.data.check.findings import KINDS, Checked, Finding
from mmlit.data.survey import counted

#: findings of a kind that the table shows
_SHOWN = 10
#: most words of one finding there
_WIDTH = 240


def as_table(checked: Checked, *, root: object) -> str:
    """Numbers of each split, what its pictures are, and the first findings of each kind."""
    lines = [str(root), *_splits(checked), ""]
    for name, split in checked.splits.items():
        lines += [f"{name}: {line}" for line in _pictures(split.facts)]
        if "tags" in split.facts:
            tags = split.facts["tags"]
            lines.append(f"{name}: {counted(len(tags), 'tag')}: {_counts(dict(list(tags.items())[:_SHOWN]))}")
    for kind, (wrong, heading) in KINDS.items():
        if found := [finding for finding in checked.findings if finding.kind == kind]:
            lines += ["", *_block(f"{'WRONG' if wrong else 'note'}: {heading}: {len(found):,}", found)]
    count = sum(KINDS[finding.kind][0] for finding in checked.findings)
    return "\n".join(
        [
            *lines,
            "",
            f"{counted(count, 'thing')} {'is' if count == 1 else 'are'} wrong" if count else "nothing is wrong",
        ]
    )


def as_dict(checked: Checked, *, root: object) -> dict[str, Any]:
    """All of it, in plain containers."""
    findings = {
        kind: [
            {"split": finding.split, "place": finding.place, "what": finding.what}
            for finding in checked.findings
            if finding.kind == kind
        ]
        for kind in KINDS
    }
    return {
        "root": str(root),
        "wrong": checked.wrong,
        "splits": {name: split.facts for name, split in checked.splits.items()},
        "findings": {
            kind: {"wrong": KINDS[kind][0], "what": KINDS[kind][1], "count": len(rows), "rows": rows}
            for kind, rows in findings.items()
        },
    }


def _splits(checked: Checked) -> Iterator[str]:
    rows = [("split", "images", "pairs", "captions per image", "words", "tokens")]
    for name, split in checked.splits.items():
        facts = split.facts
        spreads = [_spread(facts[key]) if key in facts else "-" for key in ("captions_per_image", "words", "tokens")]
        rows.append((name, f"{facts['images']:,}", f"{facts['pairs']:,}", *spreads))  # type: ignore[arg-type]
    if all("tokens" not in split.facts for split in checked.splits.values()):
        rows = [row[:-1] for row in rows]  # type: ignore[misc]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
    for name, split in checked.splits.items():
        histogram = split.facts["captions_per_image"]["histogram"]
        if len(histogram) > 1:
            some = list(histogram.items())[:_SHOWN]
            told = ", ".join(f"{number}: {count:,}" for number, count in some)
            yield f"{name}: images by their number of captions: {told}{', ...' if len(histogram) > _SHOWN else ''}"


def _spread(spread: dict[str, Any]) -> str:
    if spread["min"] == spread["max"]:
        return str(spread["min"])
    return f"{spread['min']} to {spread['max']:,} (mean {spread['mean']:.1f})"


def _pictures(facts: dict[str, Any]) -> Iterator[str]:
    found = facts["pictures"]
    yield f"{found['readable']:,} of {facts['images']:,} pictures can be read"
    if found["readable"]:
        width, height = ("{} to {}".format(*found[side]) for side in ("width", "height"))
        yield f"{counted(found['sizes'], 'size')}: {width} px wide, {height} px high"
        yield f"{_counts(found['formats'])}; modes {_counts(found['modes'])}"
        if found["marks"]:
            yield _counts(found["marks"])


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _block(heading: str, found: Sequence[Finding]) -> Iterator[str]:
    yield heading
    for finding in found[:_SHOWN]:
        line = " ".join(f"{finding.place} {finding.what}".split())
        yield f"  {line[:_WIDTH]}{'...' if len(line) > _WIDTH else ''}"
    if len(found) > _SHOWN:
        yield f"  and {len(found) - _SHOWN:,} more: --json FILE has them all"
