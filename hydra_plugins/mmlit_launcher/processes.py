"""Hydra launcher `hydra/launcher=processes`: every job of a sweep in its own process. The work is in `mmlit.jobs`.

The folder is a namespace package: Hydra finds launchers nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ProcessesConf:
    """Options of the launcher: `jobs` at a time, `threads` of each (results repeat to the last digit at one number)."""

    _target_: str = "hydra_plugins.mmlit_launcher.processes.ProcessLauncher"
    jobs: int = 2
    threads: int = 1


ConfigStore.instance().store(group="hydra/launcher", name="processes", node=ProcessesConf, provider="mmlit")


class ProcessLauncher(Launcher):
    """Finished jobs are skipped, failed ones are listed at the end and do not stop the others."""

    def __init__(self, *, jobs: int, threads: int) -> None:
        self.jobs, self.threads = jobs, threads

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mmlit.run.sweep import sweep

        loader = self.hydra_context.config_loader
        configs = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        sweep(configs, parallel=self.jobs, threads=self.threads)
        return [
            JobReturn(overrides=list(o), cfg=c, status=JobStatus.COMPLETED)
            for o, c in zip(job_overrides, configs, strict=True)
        ]
