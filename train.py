"""Trains and evaluates one point of the grid, or a sweep: `python train.py --help`."""

import atexit
import gc
import sys
from contextlib import nullcontext

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mmlit.cli import one_line_errors, training_help


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    """Imports what is heavy only after the command line has been understood."""
    gc.disable()
    from mmlit.run.start import start

    # What is imported stays: the collector would look through it again and again, and unshare the pages of forked jobs.
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # or extension modules would complain at the end that nobody collected theirs
    # Inside the job of a single run, since Hydra says something of its own about what leaves it.
    alone = HydraConfig.get().mode == RunMode.RUN
    with one_line_errors("train.py") if alone else nullcontext():
        return start(config)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write(training_help() + "\n")
        sys.exit(0)
    with one_line_errors("train.py"):
        main()
