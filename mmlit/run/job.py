"""One run as it was asked for: its resolved configuration, and where its record goes."""

from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from mmlit.configuration.identity import run_name
from mmlit.configuration.stored import stored_config
from mmlit.model import checkpoint_of
from mmlit.training.checkpoints import read_checkpoint
from mmlit.training.resume import FILE_NAME as RESUME_NAME

#: axes of which nothing need be chosen: lists of parts, and single parts
_LISTS, _OPTIONAL = ("auxiliary", "augmentation", "towers", "callbacks", "logger"), ("groups", "step")
#: what a checkpoint's own configuration does not decide
_OF_THIS_RUN = {
    *("fit", "checkpoint", "split", "paths", "trainer", "logger", "callbacks", "resume_minutes", "batching", "reading"),
    "features",
}


class Job(NamedTuple):
    """One run: resolved configuration, the choice made on each axis, what the user typed; a folder if not its own.

    `launch` names the configuration file that the overrides stand on, and the folders given for it. `again` says
    whether a finished run of this very configuration is replaced, or kept as it is.
    """

    config: DictConfig
    choices: dict[str, str | None]
    overrides: list[str]
    folder: Path | None = None
    launch: dict[str, Any] | None = None
    again: bool = True

    @property
    def plain(self) -> dict[str, Any]:
        """The resolved configuration as plain containers."""
        return OmegaConf.to_container(self.config, resolve=True)  # type: ignore[return-value]

    @property
    def directory(self) -> Path:
        """Keyed by what runs, so that two different jobs never share a folder."""
        return self.folder or Path(self.config.paths.outputs) / run_name(self.choices, self.plain)

    @property
    def resume_point(self) -> Path:
        """What a killed run of this very configuration left to go on from; absent if there is nothing."""
        return self.directory / RESUME_NAME

    @property
    def finished(self) -> bool:
        """Whether a record of this very configuration exists."""
        return (self.directory / "result.json").is_file()


def job_of(config: DictConfig) -> Job:
    """The job that a configuration composed by Hydra describes."""
    runtime = config.hydra if "hydra" in config else HydraConfig.get()
    _refuse_two_rules(list(runtime.overrides.task))
    choices = {axis: choice for axis, choice in runtime.runtime.choices.items() if not axis.startswith("hydra")}
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    _leave_out(plain, list(runtime.overrides.task))
    for axis in ("auxiliary", "augmentation", "towers"):  # Hydra tells no choices of lists
        if plain.get(axis):
            choices[axis] = f"[{','.join(sorted(map(str, plain[axis])))}]"
    return Job(
        plain,
        OmegaConf.to_container(OmegaConf.create(choices)),  # type: ignore[arg-type]
        list(runtime.overrides.task),
        launch=_launch(runtime),
    )


def _refuse_two_rules(overrides: list[str]) -> None:
    """`best` and `last` are two values of one node: the second would silently replace the first.

    Raises:
        ValueError: if both are asked for.
    """
    for override in overrides:
        axis, _, value = override.partition("=")
        if axis == "callbacks" and {"best", "last"} <= {name.strip() for name in value.strip("[]").split(",")}:
            raise ValueError(f"{override}: best and last both say which checkpoint is reported; take one of them")


def _leave_out(config: DictConfig, overrides: list[str]) -> None:
    """Takes out the options that an experiment sets for a part that the command line chose not to have.

    Raises:
        ValueError: if options are set for a part that nobody chose and no choice of the axis was typed, or are typed
            themselves.
    """
    typed = {override.lstrip("+~").partition("=")[0] for override in overrides}
    set_alone = [
        *((axis, config, axis) for axis in _OPTIONAL if config.get(axis)),
        *((axis, config[axis], name) for axis in _LISTS for name in list(config.get(axis) or ())),
    ]
    for axis, parent, name in set_alone:
        if "_target_" in parent[name]:
            continue
        where = axis if axis == name else f"{axis}.{name}"
        if own := [key for key in sorted(typed) if key.startswith(f"{where}.")]:
            raise ValueError(f"{own[0]}: no such option without {axis}={'...' if axis == name else f'[{name}]'}")
        if axis not in typed:
            raise ValueError(f"{where} has options, but is not chosen: choose it with {axis}=, or take them out")
        with open_dict(parent):
            del parent[name]


def _launch(runtime: Any) -> dict[str, Any] | None:
    """`--config-name` and `--config-dir`; folders relative to where the command was given, where they lie below."""
    if not runtime.job.config_name:
        return None
    given = [Path(source.path) for source in runtime.runtime.config_sources if source.provider == "command-line"]
    here = Path(runtime.runtime.cwd)
    folders = [folder.relative_to(here) if folder.is_relative_to(here) else folder for folder in given]
    return {"config_name": runtime.job.config_name, "config_dirs": [folder.as_posix() for folder in folders]}


def evaluation_job(job: Job) -> Job:
    """A checkpoint's own configuration with what the user typed on top.

    Raises:
        ValueError: if no checkpoint is named, or the stored configuration names a class that `conf/` does not.
    """
    if not job.config.checkpoint:
        raise ValueError("fit=false evaluates a checkpoint: name it with checkpoint=...")
    job.config.checkpoint = str(checkpoint_of(Path(job.config.checkpoint)))  # a run's folder means its checkpoint
    checkpoint = read_checkpoint(job.config.checkpoint)
    stored = OmegaConf.create(stored_config(checkpoint, path=job.config.checkpoint))
    choices = dict(checkpoint["mmlit"]["origin"]["choices"])
    typed = {override.lstrip("+~").partition("=")[0].partition("@")[0] for override in job.overrides}
    if "experiment" in typed:  # it may set anything; the model itself stays the checkpoint's
        typed |= set(job.choices) - {"image_encoder", "text_encoder", "alignment"}
    if "seed" in typed:
        raise ValueError("seed belongs to the training of a checkpoint; it cannot be given with fit=false")
    for key in sorted(typed | _OF_THIS_RUN):
        OmegaConf.update(stored, key, OmegaConf.select(job.config, key), merge=False, force_add=True)
        choices |= {key: job.choices[key]} if key in job.choices else {}
    return Job(stored, choices, job.overrides, launch=job.launch)
