"""Marginal means over whole blocks of a grid."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmlit.results.compare import compare
from mmlit.results.report.effects import effects

MakeRun = Callable[..., Path]


def grid_point(rate: float, decay: float, *, hits: int) -> dict[str, Any]:
    """A run whose rsum is 300 points from captions and 75 for each of `hits` pictures found first (0 to 4)."""

    def change(record: dict[str, Any]) -> None:
        record["config"]["optimizer"] = {"lr": rate, "weight_decay": decay}
        record["overrides"] = [f"optimizer.lr={rate}", f"optimizer.weight_decay={decay}", "seed=0", "data.root=/a"]

    return {"change": change, "i2t_rank": [1] * hits + [11] * (4 - hits) if hits < 4 else [1] * 4}


TEXTS = {"text_id": range(20), "text_image_id": [10, 20, 30, 40] * 5, "t2i_rank": [1] * 20}


def test_means_by_hand_and_the_strongest_first(make_run: MakeRun, tmp_path: Path) -> None:
    for number, (rate, decay, hits) in enumerate([(0.1, 0.0, 1), (0.1, 0.5, 2), (0.02, 0.0, 3), (0.02, 0.5, 4)]):
        make_run(f"r{number}", **TEXTS, **grid_point(rate, decay, hits=hits))
    rate, decay = effects(compare([tmp_path / "runs"]))
    assert rate.option == "optimizer.lr"
    assert [(value.name, value.mean) for value in rate.values] == [("0.02", 562.5), ("0.1", 412.5)]
    assert sorted(rate.blocks) == [(525.0, 375.0), (600.0, 450.0)]
    assert [value.mean for value in decay.values] == [450.0, 525.0]
    assert rate.range == 150


def test_a_hole_leaves_its_block_out(make_run: MakeRun, tmp_path: Path) -> None:
    for number, (rate, decay, hits) in enumerate([(0.1, 0.0, 1), (0.1, 0.5, 2), (0.02, 0.5, 4)]):
        make_run(f"r{number}", **TEXTS, **grid_point(rate, decay, hits=hits))
    by_option = {effect.option: effect for effect in effects(compare([tmp_path / "runs"]))}
    assert by_option["optimizer.lr"].blocks == ((600.0, 450.0),)
    assert by_option["optimizer.weight_decay"].blocks == ((375.0, 450.0),)


def test_one_option_is_no_grid(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("p", alignment="projection")
    make_run("j")
    assert effects(compare([tmp_path / "runs"])) == []
