"""Where the time of a run goes: Lightning's profilers, their reports in the run's folder."""

from typing import Any

from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

_PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def profiler_of(name: Any, *, directory: str) -> Profiler | None:
    """The profiler that `trainer.profiler` names, which writes `fit-profile.txt` and `test-profile.txt`.

    Args:
        name: a key of Lightning's, or None for no profiler.
        directory: of the run.

    Raises:
        ValueError: there is no profiler of that name.
    """
    if name is None:
        return None
    if name not in _PROFILERS:
        raise ValueError(f"trainer.profiler must be {', '.join(_PROFILERS)} or null, got {name!r}")
    return _PROFILERS[name](dirpath=directory, filename="profile")
