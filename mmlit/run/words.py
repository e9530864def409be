"""`KEY=VALUE` words, as `train.py` takes them → a configuration or its data, for the commands of `mmlit`."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from mmlit.configuration.binding import problems
from mmlit.configuration.stored import CONF
from mmlit.data.datamodule import PairsDataModule
from mmlit.run.job import job_of
from mmlit.run.parts import make


def composed(words: Sequence[str]) -> DictConfig:
    """What `conf/` gives with these words; Hydra's own node, under `hydra`, says which choices were made.

    Raises:
        Whatever Hydra raises for a word that fits nothing; `mmlit.cli` tells it in a line.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words), return_hydra_config=True)


def opened(words: Sequence[str]) -> tuple[DictConfig, PairsDataModule]:
    """The configuration that these words give and its data, without encoders: for what asks only for splits.

    Raises:
        ValueError: naming every wrong option, before anything is read.
    """
    job = job_of(composed(words))
    if wrong := problems(job.plain):
        raise ValueError("; ".join(wrong))
    config = job.config
    data: PairsDataModule = make(
        config.data,
        seed=config.seed,
        split=config.split,
        image=None,
        text=None,
        batching=make(config.batching),
        reading=make(config.reading),
        cache=config.paths.cache,
    )
    return config, data
