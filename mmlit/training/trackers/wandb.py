"""Curves, pictures, checkpoints and results in Weights & Biases, online or offline."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch.loggers import WandbLogger

from mmlit.training.trackers.tracked_run import TrackedRun

#: seconds that a finished run waits for its upload; what is left lies in its folder, for `wandb sync`
_PATIENCE = 600
#: characters that ids and tags may have
_LENGTH = 64


class WandbTracker(WandbLogger):
    """A run of its own, named by its folder, in the group of its sweep; closed inside its job.

    The id is that of the folder, so that a killed run goes on as the same one; a run that begins anew replaces what
    an earlier one of this folder left. In one of wandb's own sweeps the id is the sweep's.

    Args:
        project: name of the project.
        offline: whether files are only written below the run's folder, for `wandb sync`.
        log_checkpoint: whether the reported checkpoint becomes an artifact.
        run: what is tracked.
    """

    def __init__(self, *, project: str, offline: bool, log_checkpoint: bool, run: TrackedRun) -> None:
        super().__init__(
            name=run.name,
            save_dir=run.directory,
            id=f"{run.group}-{run.name}"[-_LENGTH:],  # the end tells the configuration
            project=project,
            # `offline=True` of Lightning's logger would set an environment variable for all later runs, too
            mode="offline" if offline else None,
            group=run.group,
            job_type=run.job_type,
            tags=[f"{axis}={choice}"[:_LENGTH] for axis, choice in run.choices.items()],
            resume=None if run.resumed_step is None else "allow",
            settings={"finish_timeout": _PATIENCE},
        )
        self._wandb_init.pop("anonymous", None)  # Lightning passes it, and the library warns of it
        self.log_checkpoint = log_checkpoint

    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """See `Guarded`."""
        for name, path in pictures.items():
            self.log_image(name, [str(path)], step)

    def log_result(self, files: Sequence[Path], checkpoint: Path | None, metrics: Mapping[str, float]) -> None:
        """See `Guarded`: a table of the numbers, an artifact of the files, one of the checkpoint."""
        import wandb

        self.log_table("test/metrics", ["metric", "value"], [[name, value] for name, value in metrics.items()])
        artifact = wandb.Artifact(f"result-{self.experiment.id}", "result", metadata=dict(metrics))
        for file in files:
            artifact.add_file(str(file))
        self.experiment.log_artifact(artifact)
        if self.log_checkpoint and checkpoint is not None:
            artifact = wandb.Artifact(f"checkpoint-{self.experiment.id}", "model", metadata=dict(metrics))
            artifact.add_file(str(checkpoint), policy="immutable")  # not copied
            self.experiment.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        """See `Guarded`."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(failed))
            self._experiment = None
