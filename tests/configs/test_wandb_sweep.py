"""wandb's own sweeps, as far as they go without its server: its agent's command, and what Hydra makes of it."""

import math
import random
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

from mmlit.configuration.binding import problems
from mmlit.training.trackers.tracked_run import flattened

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "sweeps" / "wandb").glob("*.yaml"))


def test_there_is_one():
    assert SWEEPS


def drawn(parameter: dict, source: random.Random):
    """A value as the distribution's name says."""
    if "values" in parameter:
        return source.choice(parameter["values"])
    low, high = parameter["min"], parameter["max"]
    assert low < high
    if parameter["distribution"] == "log_uniform_values":
        return math.exp(source.uniform(math.log(low), math.log(high)))
    assert parameter["distribution"] == "uniform"
    return source.uniform(low, high)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_agents_command_is_a_run_of_ours(path):
    sweep = load_sweep_config(str(path))
    assert (ROOT / sweep["program"]).is_file()
    assert sweep["method"] in {"bayes", "grid", "random"}
    assert sweep["metric"] == {"name": "val/rsum", "goal": "maximize"}
    assert path.read_text().splitlines()[0].startswith("# ")
    source = random.Random(0)
    for _ in range(20):
        values = {name: drawn(parameter, source) for name, parameter in sweep["parameters"].items()}
        words = command(sweep, values)
        assert words[:3] == ["/usr/bin/env", "python", "train.py"]
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = OmegaConf.to_container(compose("config", words[3:]), resolve=True)
        assert problems(config) == []
        assert flattened(config).items() >= values.items()  # under the names that its dashboard puts them beside
        assert "wandb" in config["logger"]


def command(sweep: dict, values: dict) -> list[str]:
    """The words that `wandb agent` runs, whose macros it fills in like this."""
    arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    macros = {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]], **arguments}
    words = create_sweep_command(list(sweep["command"]))
    return [part for word in words for part in (macros[word[2:-1]] if word.startswith("${") else [word])]
