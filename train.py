"""Trains and evaluates one point of the grid, or a sweep: `python train.py --help`."""

import hydra
from omegaconf import DictConfig

from mmlit.cli import one_line_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Imports what is heavy only after the command line has been understood."""
    from mmlit.run import start

    start(config)


if __name__ == "__main__":
    with one_line_errors("train.py"):
        main()
