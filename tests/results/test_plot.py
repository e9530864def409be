"""The picture: its size, that it is always the same, and that no label or cost breaks it."""

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from results.made_rows import no_pairs

from mmlit.results.comparison import METRICS, Comparison, Row, Spread
from mmlit.results.plot import picture


def comparison(labels: list[str], seconds: list[float], sd: float | None = 2.0) -> Comparison:
    rows = [
        Row(
            label=label,
            seeds=(0,),
            metrics={name: Spread(300.0 + 10 * position, sd, 1) for name in METRICS},
            differences=None,
            trials=None,
            scored="full",
            split="test",
            gallery=(4, 8),
            parameters=1,
            trainable=1,
            pairs_seen=(1, 1),
            fit_seconds=Spread(cost, None, 1),
            evaluation_seconds=Spread(cost / 10, None, 1),
            peak_memory=Spread(1.0, None, 1),
        )
        for position, (label, cost) in enumerate(zip(labels, seconds, strict=True))
    ]
    return Comparison(tuple(rows), labels[0], "", (), no_pairs(len(rows)))


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def test_size_background_and_content() -> None:
    image = opened(picture(comparison(["projection", "contrastive", "joint"], [60, 61, 200])))
    assert image.size == (1800, 840)
    pixels = np.asarray(image)
    assert (pixels[0, 0] == 255).all()
    assert 0.01 < (pixels.min(axis=-1) < 200).mean() < 0.2


def test_the_same_comparison_gives_the_same_bytes(tmp_path: Path) -> None:
    given = comparison(["projection", "joint"], [60, 61])
    first = picture(given)
    with mpl.rc_context({"font.size": 30, "figure.facecolor": "black", "axes.facecolor": "black"}):
        assert picture(given) == first
    assert mpl.rcParams["axes.spines.top"], "the style must not leak"


@pytest.mark.parametrize(
    ("labels", "seconds", "sd"),
    [
        (["projection"], [60.0], None),
        (["projection", "$x^2_$"], [0.0, 0.0], 1.0),
        (["projection", "joint"], [1.0, 100.0], None),
        (["a", "a|b\nc"], [60.0, 60.0], 0.0),
    ],
)
def test_odd_costs_and_labels(labels: list[str], seconds: list[float], sd: float | None) -> None:
    """Trap 36: a label is text, not a formula."""
    assert opened(picture(comparison(labels, seconds, sd))).size == (1800, 840)


def test_many_rows_have_numbers_and_a_legend() -> None:
    labels = [f"joint, optimizer.lr={i}, $x^{i}" for i in range(12)]
    width, height = opened(picture(comparison(labels, [60.0 + i for i in range(12)]))).size
    assert width == 1800
    assert height > 1000
