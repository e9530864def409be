"""Published figures, and what a result says beside them."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmlit.results.anchors import TOLERANCE, add_arguments, check, read_anchors, run
from mmlit.results.record import FILE_NAME, read_record

ANCHORS = read_anchors()


def published(off: float = 0.0, *, pairs: int = 0, name: str = "models/clip-vit-base-patch32") -> Callable[[Any], None]:
    """A record of CLIP B/32 that lies `off` points beside the figure everywhere."""

    def change(record: dict[str, Any]) -> None:
        figure = next(anchor for anchor in ANCHORS if anchor.name == "CLIP ViT-B/32")
        recalls = {metric: value + off for metric, value in figure.recalls.items()}
        record["choices"]["evaluator"] = "coco_5k"
        record["config"]["image_encoder"] = {"name": name}
        record["budget"] = {"epochs": 0, "steps": 0, "pairs_seen": pairs}
        record["metrics"] |= {**recalls, "rsum": sum(recalls.values())}

    return change


def told(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def test_every_figure_is_whole_and_says_where_it_is_from() -> None:
    for anchor in ANCHORS:
        assert 0 < anchor.i2t[0] < anchor.i2t[1] < anchor.i2t[2] < 100, anchor.name
        assert 0 < anchor.t2i[0] < anchor.t2i[1] < anchor.t2i[2] < 100, anchor.name
        assert "arXiv" in anchor.source
        assert (Path(__file__).parents[2] / f"conf/evaluator/{anchor.protocol}.yaml").is_file()
    assert len({(anchor.name, anchor.protocol) for anchor in ANCHORS}) == len(ANCHORS) >= 12


@pytest.mark.parametrize(("off", "code", "verdict"), [(0.3, 0, "agrees"), (-0.7, 1, "DISAGREES")])
def test_a_pair_with_published_weights_is_held_against_its_own_figure(
    make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str], off: float, code: int, verdict: str
) -> None:
    directory = make_run("clip", change=published(off))
    assert told([str(directory)]) == code
    out = capsys.readouterr().out
    assert f"The evaluator {verdict} " in out
    assert f"i2t_r1 {off:+.2f}" in out
    assert "SigLIP" not in out


def test_one_recall_beside_the_figure_is_enough(make_run: Callable[..., Path]) -> None:
    def change(record: dict[str, Any]) -> None:
        published()(record)
        record["metrics"]["t2i_r10"] += TOLERANCE + 0.1

    (found,) = check(read_record(make_run("clip", change=change) / FILE_NAME), ANCHORS)
    assert not found.agrees


def test_a_trained_run_is_only_shown_the_figures(make_run: Callable[..., Path], capsys: Any) -> None:
    assert told([str(make_run("trained", change=published(-20, pairs=1000)))]) == 0
    out = capsys.readouterr().out
    assert "VSE++" in out
    assert "for orientation" in out
    assert "agrees" not in out.lower()


def test_other_protocols_have_no_figure(make_run: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="no published figure for evaluator=retrieval; there are some for coco_5k"):
        check(
            read_record(
                make_run("own", change=lambda record: record["choices"].update(evaluator="retrieval")) / FILE_NAME
            ),
            ANCHORS,
        )


def test_a_figure_that_is_not_there(make_run: Callable[..., Path]) -> None:
    record = read_record(make_run("clip", change=published()) / FILE_NAME)
    with pytest.raises(ValueError, match="no published figure 'CLIP' for evaluator=coco_5k"):
        check(record, ANCHORS, name="CLIP")
