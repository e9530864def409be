"""`KEY=VALUE` words, as `train.py` takes them → a configuration, for the commands of `mmlit`."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from mmlit.configuration.stored import CONF


def composed(words: Sequence[str]) -> DictConfig:
    """What `conf/` gives with these words; Hydra's own node, under `hydra`, says which choices were made.

    Raises:
        Whatever Hydra raises for a word that fits nothing; `mmlit.cli` tells it in a line.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words), return_hydra_config=True)
