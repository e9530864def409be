"""Every yaml is composed and bound to the signature of the class that it names; what is wrong is told by name."""

import itertools
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mmlit.configuration.binding import locate, problems, require_known_targets, targets
from mmlit.configuration.identity import config_hash, run_name
from mmlit.configuration.stored import stored_config

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
CHOICES = sorted(path for path in CONF.glob("*/*.yaml") if path.parent.name != "experiment")
EXPERIMENTS = sorted(CONF.glob("experiment/*.yaml"))
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
LISTS = {"logger", "callbacks", "auxiliary", "augmentation", "towers"}


def composed(*overrides: str) -> dict:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", list(overrides)), resolve=True)


def name(path: Path) -> str:
    return f"{path.parent.name}={path.stem}"


def test_every_file_is_covered():
    assert len(CHOICES) + len(EXPERIMENTS) + 1 == len(list(CONF.rglob("*.yaml")))
    assert len(CHOICES) >= 20
    assert EXPERIMENTS
    assert SWEEPS


@pytest.mark.parametrize("path", CHOICES, ids=name)
def test_choice_composes_and_binds(path):
    group = path.parent.name
    override = f"{group}=[{path.stem}]" if group in LISTS else f"{group}={path.stem}"
    # what has no sensible default must be given, and nothing else is wrong
    assert all(line.endswith("must be given, got '???'") for line in problems(composed(override)))
    text = path.read_text()
    assert text.count("_target_:") >= 1
    assert "${hydra" not in text
    assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= 30
    assert not {"name", "type", "enabled"} & (
        set(yaml.safe_load(text)) - {"name"} if group in LISTS else _own_keys(text, group)
    )


def _own_keys(text: str, group: str) -> set[str]:
    """Keys that a class does not take; an encoder's `name` is one of its arguments."""
    node = yaml.safe_load(text)
    node = node[group] if text.startswith("# @package _global_") else node
    import inspect

    return set(node) - set(inspect.signature(locate(node["_target_"])).parameters)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_experiment_composes_and_binds(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert "python train.py" in "".join(lines[1:6])
    found = problems(composed(f"experiment={path.stem}"))
    # what has no sensible default must be given, and nothing else is wrong
    assert all(line.endswith("must be given, got '???'") for line in found)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_begins_with_its_question_and_every_point_binds(path):
    text = path.read_text()
    assert text.splitlines()[0].startswith("# ")
    assert text.splitlines()[0].endswith("?")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(path.parent), version_base="1.3"):
        config = compose(path.stem, [f"hydra.searchpath=[file://{CONF}]"], return_hydra_config=True)
    assert config.hydra.launcher._target_.endswith("ProcessLauncher")
    params = {key: value for key, value in config.hydra.sweeper.params.items() if key != "seed"}  # one binds as another
    for point in itertools.product(*([f"{key}={value}" for value in _values(key, params[key])] for key in params)):
        found = problems(composed(*point))
        assert all(line.endswith("must be given, got '???'") for line in found), found


def _values(key: str, text: object) -> list[object]:
    """What a sweep tries: the values of a list, the ends of an interval."""
    parsed = OverridesParser.create().parse_override(f"{key}={text}")
    if parsed.is_interval_sweep():
        return [parsed.value().start, parsed.value().end]
    return list(parsed.sweep_iterator(transformer=lambda value: value)) if parsed.is_sweep_override() else [text]


def test_only_seed_paths_and_nothing_else_is_interpolated():
    import re

    for path in CONF.rglob("*.yaml"):
        body = path.read_text().split("\nhydra:")[0]
        assert not [found for found in re.findall(r"\$\{([^}]*)", body) if not found.startswith(("seed", "paths."))]


def test_problems_are_told_all_at_once_by_full_name():
    config = composed()
    config["data"]["batch_size"] = "many"
    config["alignment"]["temprature"] = 0.1
    del config["optimizer"]["lr"]
    del config["text_encoder"]["dim"]
    found = problems(config)
    assert len(found) == 3
    assert any("data.batch_size" in line and "'many'" in line for line in found)
    assert any("alignment.temprature" in line for line in found)
    assert any("text_encoder.dim: missing" in line for line in found)


def test_unknown_class_is_told():
    config = composed()
    config["alignment"]["_target_"] = "mmlit.alignments.nothing.Nothing"
    assert "alignment._target_: mmlit.alignments.nothing.Nothing cannot be found" in problems(config)[0]


def test_targets_that_come_with_weights_are_of_the_project(tmp_path):
    """Trap 35: a class named in somebody's file is not called unless conf/ names it."""
    config = composed()
    require_known_targets(config, CONF, source="x.ckpt")
    config["data"]["source"]["_target_"] = "os.system"
    with pytest.raises(ValueError, match=r"x\.ckpt names data\.source\._target_=os\.system"):
        require_known_targets(config, CONF, source="x.ckpt")


@pytest.mark.parametrize(
    ("hidden", "told"),
    [
        ({"mean": [{"_target_": "os.system"}]}, r"names image_encoder\.mean\.0\._target_=os\.system"),
        ({"mean": [[{"_target_": "os.system"}]]}, r"names image_encoder\.mean\.0\.0\._target_=os\.system"),
        ({"_args_": [1]}, r"gives image_encoder arguments without names"),
        ({"size": "${oc.create:'{_target_: os.system}'}"}, "holds an interpolation"),
    ],
)
def test_targets_hide_nowhere(hidden, told):
    """Trap 35: Hydra would also build what lies in a list, in `_args_`, or behind a resolver."""
    config = composed()
    config["image_encoder"] |= hidden
    with pytest.raises(ValueError, match=told):
        require_known_targets(config, CONF, source="x.ckpt")


def test_identity_ignores_where_and_sees_what():
    """Trap 27: a job's folder is keyed by what it runs."""
    config = composed()
    elsewhere = composed("paths.outputs=elsewhere")
    other = composed("seed=1")
    assert config_hash(config) == config_hash(elsewhere)
    assert config_hash(config) != config_hash(other)
    assert config_hash(config) == config_hash(composed("features=none"))
    assert config_hash(config) != config_hash(composed("features.half=true"))
    choices = {"data": "scenes", "alignment": "joint"}
    assert run_name(choices, config) != run_name(choices, other)
    assert "=" not in run_name(choices, config)


def test_a_run_that_names_no_groups_is_the_run_that_it_was():
    """Absent, not null: configurations of before the option have the same hash."""
    assert "groups" not in composed()
    assert config_hash(composed()) != config_hash(composed("groups=by_part"))


def test_targets_walks_nested_nodes():
    assert {path for path, _ in targets(composed("trainer=ddp"))} >= {
        "trainer.strategy",
        "data.source",
        "callbacks.checkpoint",
    }


def test_a_checkpoint_of_before_may_name_loggers_and_stores_that_are_gone():
    """Nothing that is read from a checkpoint logs or keeps there: their classes are neither called nor refused."""
    config = composed()
    config["logger"] = {"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": "", "version": ""}}
    config["features"] = {"_target_": "mmlit.features.memory.MemoryFeatures", "limit_gib": 16.0, "folder": None}
    found = stored_config({"mmlit": {"origin": {"config": config}}}, path="x.ckpt")
    assert not {"logger", "features"} & set(found)
    assert found["alignment"] == config["alignment"]


def test_a_checkpoint_of_before_lacks_options_that_changed_nothing():
    """Every option that a class got later is filled in with what its absence meant; here those of `contrastive`."""
    config = composed()
    later = {"label_smoothing": 0.0, "hardness": 0.0, "decoupled": False}
    old = {**config, "alignment": {key: value for key, value in config["alignment"].items() if key not in later}}
    found = stored_config({"mmlit": {"origin": {"config": old}}}, path="x.ckpt")
    assert found["alignment"] == config["alignment"]
    assert later.items() <= found["alignment"].items()
