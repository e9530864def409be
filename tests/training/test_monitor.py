"""Speed, gradient norm, learned scalars: against a clock and by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmlit.layers.similarity import Temperature
from mmlit.training import monitor
from mmlit.training.module import Budget
from mmlit.training.monitor import Monitor


class Module(nn.Module):
    """As much of the module as a monitor asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.alignment = nn.Module()
        self.budget = Budget(epochs=0, steps=0, pairs_seen=0)
        self.logged: list[dict[str, float]] = []

    def log_dict(self, values, **_):
        self.logged.append(values)

    def log(self, name, value, **_):
        self.logged.append({name: value})


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: now.seconds)
    return now


def trainer(every: int) -> SimpleNamespace:
    found = SimpleNamespace(global_step=0, loggers=[])
    connector = type("Connector", (), {"should_update_logs": property(lambda _: found.global_step % every == 0)})
    found._logger_connector = connector()
    return found


def test_speed_and_waiting_are_means_since_the_last_logged_step_without_validation(clock):
    watcher, module, at = Monitor(parameters={}), Module(), trainer(every=2)
    watcher.on_train_start(at, module)
    watcher.on_train_epoch_start(at, module)
    for step in range(1, 5):
        clock.seconds += 1.0  # waits for a batch
        watcher.on_train_batch_start(at, module)
        clock.seconds += 3.0
        at.global_step = step
        module.budget = module.budget._replace(pairs_seen=module.budget.pairs_seen + 10 * step)
        watcher.on_train_batch_end(at, module)
        clock.seconds += 50.0  # validates
        watcher.on_validation_end(at, module)
    assert [logged["train/pairs_per_second"] for logged in module.logged] == [30 / 8, 70 / 8]
    assert [logged["train/waiting"] for logged in module.logged] == [0.25, 0.25]


def test_a_batch_that_makes_no_step_is_counted_with_the_step_that_it_belongs_to(clock):
    watcher, module, at = Monitor(parameters={}), Module(), trainer(every=1)
    watcher.on_train_start(at, module)
    for batch in range(1, 5):
        clock.seconds += 1.0
        at.global_step = batch // 2
        module.budget = module.budget._replace(pairs_seen=10 * batch)
        watcher.on_train_batch_end(at, module)
    assert len(module.logged) == 2


def test_gradient_norm_is_of_all_gradients_together():
    watcher, module = Monitor(parameters={}), Module()
    module.one, module.two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    module.unused = nn.Parameter(torch.zeros(3))
    module.one.grad, module.two.grad = torch.tensor([2.0, 3.0]), torch.tensor([6.0])
    watcher.on_before_optimizer_step(trainer(every=1), module, None)
    assert module.logged == [{"train/grad_norm": torch.tensor(7.0)}]


def test_temperature_and_bias_only_where_they_are_learned(clock):
    watcher, module, at = Monitor(parameters={}), Module(), trainer(every=1)
    for step, (temperature, bias) in enumerate(
        [
            (Temperature(initial=0.05, learn=True), nn.Parameter(torch.tensor([-10.0]))),
            (Temperature(initial=0.05, learn=False), None),
        ],
        start=1,
    ):
        module.alignment.temperature, module.alignment.bias = temperature, bias
        clock.seconds += 1.0
        at.global_step = step
        watcher.on_train_batch_end(at, module)
    assert module.logged[0]["train/temperature"] == pytest.approx(0.05)
    assert module.logged[0]["train/bias"] == -10.0
    assert not module.logged[0]["train/temperature"].requires_grad
    assert module.logged[1].keys() == {"train/pairs_per_second", "train/waiting"}


def test_options_are_told_once(clock):
    told = []
    at = trainer(every=1)
    at.loggers = [SimpleNamespace(log_hyperparams=told.append)]
    watcher = Monitor(parameters={"seed": 1})
    for stage in ("fit", "test"):
        watcher.setup(at, Module(), stage)
    assert told == [{"seed": 1}]
