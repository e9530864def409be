"""What a tuning sweep found, and what makes it unfair."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmlit.results.tuning import add_arguments, choose, command, run

Make = Callable[..., Path]


def trial(lr: float, temperature: float, *, split: str = "val", pairs: int = 40960) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        record["config"]["optimizer"]["lr"] = lr
        record["config"]["alignment"]["temperature"] = temperature
        record["config"]["data"]["test"] = "test"
        record["split"], record["budget"]["pairs_seen"] = split, pairs

    return change


@pytest.fixture
def trials(make_run: Make) -> Path:
    """Three trials of two strategies; the second of `joint` and the last of `contrastive` are best."""
    ranks = {"joint": [(2, 2, 2, 2), (1, 1, 1, 2), (1, 1, 2, 2)], "contrastive": [(3,) * 4, (2,) * 4, (1,) * 4]}
    for alignment, each in ranks.items():
        for number, (lr, rank) in enumerate(zip((1e-4, 1e-3, 1e-2), each, strict=True)):
            name = f"{alignment}{number}"
            make_run(name, alignment=alignment, i2t_rank=rank, change=trial(lr, 0.07))
    return make_run("joint1", alignment="joint", i2t_rank=(1, 1, 1, 2), change=trial(1e-3, 0.07)).parent


def test_the_best_trial_of_each_strategy(trials: Path) -> None:
    contrastive, joint = choose([trials])
    assert (contrastive.strategy, contrastive.options, contrastive.num_trials) == (
        "contrastive",
        {"optimizer.lr": "0.01"},
        3,
    )
    assert (joint.strategy, joint.options) == ("joint", {"optimizer.lr": "0.001"})
    assert contrastive.at_edge == ("optimizer.lr",)
    assert joint.at_edge == ()
    assert command(joint).endswith("--config-name tuned alignment=joint optimizer.lr=0.001 trials=3")


def test_strategies_with_unequal_numbers_of_trials_are_refused(trials: Path, make_run: Make) -> None:
    make_run("joint3", alignment="joint", change=trial(1e-1, 0.07))
    with pytest.raises(ValueError, match=r"different numbers of trials \(contrastive 3, joint 4\)"):
        choose([trials])


def test_nothing_is_chosen_on_the_test_split(trials: Path, make_run: Make) -> None:
    """Trap 9."""
    make_run("joint0", alignment="joint", change=trial(1e-4, 0.07, split="test"))
    with pytest.raises(ValueError, match="joint0 was reported on split test: nothing may be chosen there"):
        choose([trials])


def test_trials_of_unequal_budget_are_refused(trials: Path, make_run: Make) -> None:
    make_run("joint0", alignment="joint", change=trial(1e-4, 0.07, pairs=5))
    with pytest.raises(ValueError, match="different numbers of pairs"):
        choose([trials])


def test_what_is_printed(trials: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([str(trials)])) == 0
    out = capsys.readouterr().out
    assert "contrastive: optimizer.lr is best at the edge of what was tried" in out
    assert "alignment=contrastive optimizer.lr=0.01 trials=3" in out
