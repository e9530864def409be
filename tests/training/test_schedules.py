"""Schedules beside the cosine, which is among the small parts."""

import math

import pytest
import torch
from torch import nn

from mmlit.training.schedules import constant, inverse_sqrt


@pytest.mark.parametrize("schedule", [constant, inverse_sqrt])
def test_warmup_then(schedule):
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (2.0, 4.0)])
    made = schedule(optimizer, total_steps=100, warmup=0.2)
    rates = []
    for _ in range(100):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        made.step()
    assert all(2 * one == pytest.approx(other) for one, other in rates)
    assert [one for one, _ in rates[:21]] == pytest.approx([2 * (step + 1) / 21 for step in range(21)])
    after = 2.0 if schedule is constant else 2 * math.sqrt(21 / 84)
    assert rates[83][0] == pytest.approx(after)
    with pytest.raises(ValueError, match=r"schedule\.warmup must lie in \[0, 1\), got 1"):
        schedule(optimizer, total_steps=10, warmup=1)
