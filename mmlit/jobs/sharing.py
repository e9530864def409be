"""How many jobs run at a time, and what each has of the machine."""

from collections.abc import Sequence
from typing import NamedTuple

#: jobs at a time where there is no GPU and nobody says how many: each needs memory of its own
_JOBS = 4


class Share(NamedTuple):
    """Jobs at a time, threads of each of a job's processes, and the GPUs of each place (none: empty)."""

    parallel: int
    threads: int
    devices: tuple[str, ...]


def shares(*, parallel: int | None, threads: int | None, num_devices: int, gpus: Sequence[str], cores: int) -> Share:
    """Shares cores and GPUs out among jobs.

    Args:
        parallel: jobs at a time, or None: as many as have `num_devices` GPUs, or cores, alone (cores: at most 4).
        threads: of each process, or None: what the cores give.
        num_devices: devices of a job, ≥ 1; each has a process.
        gpus: their names as CUDA_VISIBLE_DEVICES has them; empty where jobs use none.
        cores: of the machine, ≥ 1.

    Raises:
        ValueError: if a number is less than 1, or a job needs more GPUs than there are.
    """
    for name, number in (("jobs", parallel), ("threads", threads)):
        if number is not None and number < 1:
            raise ValueError(f"hydra.launcher.{name} must be >= 1, got {number}")
    if gpus and num_devices > len(gpus):
        raise ValueError(f"trainer.devices={num_devices}: only {len(gpus)} GPUs can be seen ({', '.join(gpus)})")
    most = len(gpus) // num_devices if gpus else min(_JOBS, cores // num_devices)
    parallel = parallel or max(1, most)
    threads = threads or max(1, cores // (parallel * num_devices))
    # With more jobs than that, several share a GPU.
    firsts = [place % most * num_devices for place in range(parallel)] if gpus else []
    return Share(parallel, threads, tuple(",".join(gpus[first : first + num_devices]) for first in firsts))
