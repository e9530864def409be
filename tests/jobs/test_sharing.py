"""Cores and GPUs shared out among jobs."""

import pytest

from mmlit.jobs.sharing import Share, shares


def shared(**changes) -> Share:
    options = {"parallel": None, "threads": None, "num_devices": 1, "gpus": [], "cores": 8}
    return shares(**{**options, **changes})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"cores": 2}, Share(2, 1, ())),
        ({"cores": 1}, Share(1, 1, ())),
        ({"cores": 16}, Share(4, 4, ())),
        ({"cores": 8, "num_devices": 4}, Share(2, 1, ())),
        ({"cores": 2, "num_devices": 4}, Share(1, 1, ())),
        ({"parallel": 3, "threads": 2}, Share(3, 2, ())),
        ({"gpus": ["0", "1"], "cores": 16}, Share(2, 8, ("0", "1"))),
        ({"gpus": ["4", "5", "6", "7"], "num_devices": 2}, Share(2, 2, ("4,5", "6,7"))),
        ({"gpus": ["0", "1", "2"], "num_devices": 2}, Share(1, 4, ("0,1",))),
        ({"gpus": ["0", "1"], "parallel": 4}, Share(4, 2, ("0", "1", "0", "1"))),
    ],
)
def test_no_place_is_given_what_another_has(given, expected):
    assert shared(**given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parallel": 0}, "hydra.launcher.jobs must be >= 1, got 0"),
        ({"threads": 0}, "hydra.launcher.threads must be >= 1, got 0"),
        ({"gpus": ["0"], "num_devices": 2}, "trainer.devices=2: only 1 GPUs can be seen"),
    ],
)
def test_what_the_machine_has_not_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        shared(**given)
