"""Trains and evaluates one point of the grid, or a sweep: `python train.py --help`."""

import sys

import hydra
from omegaconf import DictConfig

from mmlit.cli import one_line_errors, training_help


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Imports what is heavy only after the command line has been understood."""
    from mmlit.run.fit import start

    with one_line_errors("train.py"):  # inside the job, since Hydra says something of its own about what leaves it
        start(config)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write(training_help() + "\n")
        sys.exit(0)
    with one_line_errors("train.py"):
        main()
