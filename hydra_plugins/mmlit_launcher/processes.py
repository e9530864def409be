"""Hydra launcher `hydra/launcher=processes`: every job of a sweep in its own process. The work is in `mmlit.jobs`.

The folder is a namespace package: Hydra finds launchers nowhere else.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ProcessesConf:
    """Options of the launcher.

    `jobs` at a time (null: one for each GPU, or each core up to four), `threads` of each process (null: the cores are
    shared out; results repeat to the last digit at one number), `dry_run`: only print what would run.
    """

    _target_: str = "hydra_plugins.mmlit_launcher.processes.ProcessLauncher"
    jobs: int | None = None
    threads: int | None = None
    dry_run: bool = False


ConfigStore.instance().store(group="hydra/launcher", name="processes", node=ProcessesConf, provider="mmlit")


class ProcessLauncher(Launcher):
    """Finished jobs are skipped, half-finished ones go on, failed ones are listed at the end and stop no others."""

    def __init__(self, *, jobs: int | None, threads: int | None, dry_run: bool) -> None:
        self.jobs, self.threads, self.dry_run = jobs, threads, dry_run

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Composes all jobs before the first starts: an edited yaml changes no planned job.

        Raises:
            ValueError: naming what is wrong with any job; where the jobs are a plain grid, at the end naming the failed
                ones; where a sweeper searches, if a job has no val/rsum to search by.
        """
        from mmlit.run.sweep import plan, sweep

        loader = self.hydra_context.config_loader
        configs = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        searches = "BasicSweeper" not in self.config.hydra.sweeper["_target_"]
        if self.dry_run and searches:
            raise ValueError("hydra.launcher.dry_run shows the jobs of a grid; a search plans them as it goes")
        if self.dry_run:
            sys.stdout.write(f"{plan(configs)}\n")
            return [_returned(overrides, config) for overrides, config in zip(job_overrides, configs, strict=True)]
        ended = sweep(configs, parallel=self.jobs, threads=self.threads)
        failed = [f"{each.name}: {each.error}" for each in ended if each.error]
        if failed and not searches:
            raise ValueError(f"{len(failed)} of {len(ended)} runs failed: {' | '.join(failed)}")
        if searches and any(each.value is None and not each.error for each in ended):
            raise ValueError("a search needs val/rsum: let trainer.check_val_every_n_epoch measure it")
        return [
            _returned(overrides, config, each.value if each.error is None else ValueError(each.error))
            for overrides, config, each in zip(job_overrides, configs, ended, strict=True)
        ]


def _returned(overrides: Sequence[str], config: DictConfig, value: object = None) -> JobReturn:
    failed = isinstance(value, ValueError)
    returned = JobReturn(
        overrides=list(overrides), cfg=config, status=JobStatus.FAILED if failed else JobStatus.COMPLETED
    )
    returned.return_value = value
    return returned
