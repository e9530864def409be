"""Published figures, and what a result says beside them."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from results.conftest import RECORD

from mmlit.results.anchors import TOLERANCE, add_arguments, check, read_anchors, run
from mmlit.results.record import FILE_NAME, append_evaluation, read_record

ANCHORS = read_anchors()


def published(off: float = 0.0, *, pairs: int = 0, name: str = "models/clip-vit-base-patch32") -> Callable[[Any], None]:
    """A record of CLIP B/32 that lies `off` points beside the figure everywhere."""

    def change(record: dict[str, Any]) -> None:
        figure = next(anchor for anchor in ANCHORS if anchor.name == "CLIP ViT-B/32")
        recalls = {metric: value + off for metric, value in figure.recalls.items()}
        record["choices"]["evaluator"] = "coco_5k"
        record["gallery"] |= {"images": 5000, "texts": 25000}
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
        assert anchor.protocol in ("coco_5k", "coco_1k"), "whose galleries `check` knows"
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
    with pytest.raises(ValueError, match="no published figure 'CLIP'; `mmlit anchors` lists them"):
        check(record, ANCHORS, name="CLIP")


def later(evaluator: str, r1: float, **changes: Any) -> dict[str, Any]:
    """What `mmlit evaluate` adds to a run, with CLIP's recalls but for one."""
    figure = next(anchor for anchor in ANCHORS if anchor.name == "CLIP ViT-B/32")
    usual = {
        "evaluator": evaluator,
        "data": "coco_karpathy",
        "split": "test",
        "scored": "full",
        "protocol": {"name": "retrieval", "ks": [1, 5, 10]},
        "counts": {"images": 5000, "texts": 25000},
        "fingerprint": "f",
        "metrics": figure.recalls | {"i2t_r1": r1},
        "seconds": 1.0,
        "options": {},
        "environment": RECORD["environment"],
        "code": RECORD["code"],
        "finished": "2026-11-22T05:10:11+00:00",
        "folder": f"evaluations/{evaluator}-{r1}",
    }
    return usual | changes


@pytest.mark.parametrize(
    ("gallery", "found"),
    [
        ({"images": 1000, "texts": 5000}, "1,000 images, 5,000 texts of split test"),
        ({"images": 5000, "texts": 25010}, "5,000 images, 25,010 texts of split test"),
        ({"split": "val"}, "5,000 images, 25,000 texts of split val"),
        ({"folds": 5}, "5,000 images, 25,000 texts of split test in 5 folds"),
    ],
)
def test_another_gallery_than_the_figures_is_refused(
    make_run: Callable[..., Path], gallery: dict[str, Any], found: str
) -> None:
    """Trap 11."""

    def change(record: dict[str, Any]) -> None:
        published()(record)
        record["gallery"] |= {key: value for key, value in gallery.items() if key in ("images", "texts")}
        record["protocol"] |= {key: value for key, value in gallery.items() if key == "folds"}
        record["split"] = gallery.get("split", "test")

    with pytest.raises(ValueError, match=f"5,000 images and 25,000 texts, here coco_5k ranked {found}; `mmlit eval"):
        check(read_record(make_run("other", change=change) / FILE_NAME), ANCHORS)


def test_the_newest_later_evaluation_of_the_gallery_counts(make_run: Callable[..., Path]) -> None:
    directory = make_run("trained", change=lambda record: record["choices"].update(evaluator="retrieval"))
    append_evaluation(directory, later("coco_5k", 60.12, finished="2026-11-23T05:10:11+00:00"))
    append_evaluation(directory, later("coco_5k", 55.12))
    append_evaluation(directory, later("coco_5k", 40.12, split="val", finished="2026-11-24T05:10:11+00:00"))
    (found,) = check(read_record(directory / FILE_NAME), ANCHORS, name="CLIP ViT-B/32")
    assert found.differences["i2t_r1"] == pytest.approx(10)


def test_folders_of_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no folder of a finished run: there is no result\.json in it"):
        told([str(tmp_path)])
    (tmp_path / "items.npz").touch()
    with pytest.raises(ValueError, match="holds a probe's answers: published figures are of retrieval"):
        told([str(tmp_path)])
