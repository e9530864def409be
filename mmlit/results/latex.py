"""The comparison as a LaTeX table for a paper."""

import re

from mmlit.results.comparison import DIFFERENCES, METRICS, Comparison, Row, Spread
from mmlit.results.words import TITLES

_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "…": r"\dots{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_SHOWN = tuple(name for name in METRICS if not name.endswith("median_rank"))


def latex(comparison: Comparison) -> str:
    """Write a `tabular` with booktabs' rules: metrics, difference in rsum to the baseline, costs."""
    headings = ["strategy", "$n$", *(escape_latex(TITLES[name]) for name in _SHOWN)]
    headings += [r"$\Delta$ rsum", "trainable (M)", "training (s)", "query (ms)"]
    lines = [" & ".join(headings), *(" & ".join(_cells(row)) for row in comparison.rows)]
    head, *body = (rf"{line} \\" for line in lines)
    rules = ["\\toprule", head, "\\midrule", *body, "\\bottomrule"]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}",
            f"% {' '.join(comparison.subject.split())}",
            f"% mean and standard deviation over n seeds; difference to {' '.join(comparison.baseline.split())}:",
            "% a, b: holds for these checkpoints, for the methods (corrected after Holm for all pairs of rows)",
            f"\\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
            *rules,
            "\\end{tabular}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Make text stand for itself; a line break in it is a space."""
    return re.sub(r'[\\~^<>|"…&%$#_{}]', lambda found: _SIGNS[found[0]], " ".join(text.split()))


def _cells(row: Row) -> list[str]:
    queries = sum(row.gallery)
    return [
        escape_latex(row.label),
        str(len(row.seeds)),
        *(_spread(row.metrics[name]) for name in _SHOWN),
        _difference(row),
        f"{row.trainable / 1e6:.2f}",
        f"{row.fit_seconds.mean:.1f}",
        f"{1000 * row.evaluation_seconds.mean / queries:.2f}",
    ]


def _difference(row: Row) -> str:
    if row.differences is None:
        return "--"
    own = row.differences[DIFFERENCES[0]]
    marks = ("a" if own.checkpoints_hold else "") + ("b" if own.methods_hold else "")
    return f"${own.value:+.1f}$" + (f"\\textsuperscript{{{marks}}}" if marks else "")


def _spread(spread: Spread) -> str:
    return f"${spread.mean:.1f}$" if spread.sd is None else f"${spread.mean:.1f} \\pm {spread.sd:.1f}$"
