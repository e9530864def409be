"""`mmlit data check`: composes a data set as training would, and looks at all of it."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from mmlit.configuration.binding import problems
from mmlit.data.captions import Captions
from mmlit.data.check.findings import checked
from mmlit.data.check.fix import about, fixed, require_place, words
from mmlit.data.check.report import as_dict, as_table
from mmlit.data.folder import split_names
from mmlit.data.token_table import token_table
from mmlit.results.atomic import write_atomically
from mmlit.run.job import job_of
from mmlit.run.parts import make
from mmlit.run.words import composed


def check(options: Sequence[str], *, json_file: Path | None, fix: Path | None, workers: int | None) -> int:
    """Prints what a data set holds and what is wrong with it.

    Args:
        options: as for `train.py`: `data=pairs data.root=DIR …`; with `text_encoder=…`, tokens are counted, too.
        json_file: gets everything that was found.
        fix: folder to write a copy to that has nothing wrong with it.
        workers: processes that decode pictures; None for one per core.

    Returns:
        1 if something is wrong, else 0.

    Raises:
        ValueError: if an option is wrong or the data set cannot be read at all.
    """
    config = _composed(options)
    if fix is not None:
        require_place(fix, Path(config.data.root))
    source = make(config.data.source)(root=config.data.root)
    parts = {part: config.data[part] for part in ("train", "val", "test")}
    order = _splits(parts)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    tokens = _tokens(config) if _is_asked("text_encoder", options) else None
    found = checked(source, order[::-1], workers=cores or 1 if workers is None else workers, tokens=tokens)
    root = Path(config.data.root)
    sys.stdout.write(f"{as_table(found, root=root)}\n")
    if json_file is not None:
        content = json.dumps(as_dict(found, root=root), indent=2, ensure_ascii=False)
        write_atomically(json_file, f"{content}\n".encode())
    if fix is not None:
        copy = fixed(found, folder=fix, root=root)
        sys.stdout.write(
            "\n".join(["", *about(copy, fix), shlex.join(["python", "train.py", *words(copy, fix, parts)]), ""])
        )
    return int(found.wrong)


def _composed(options: Sequence[str]) -> DictConfig:
    job = job_of(composed(options))
    asked = {key: job.plain[key] for key in ("data", "text_encoder") if key == "data" or _is_asked(key, options)}
    if wrong := problems(asked):
        raise ValueError("; ".join(wrong))
    return job.config


def _is_asked(key: str, options: Sequence[str]) -> bool:
    return any(word.startswith(key) for word in options)


def _splits(parts: dict[str, Any]) -> list[str]:
    """Splits that have names, the reported one first: what is shared stays there."""
    named = [parts[part] for part in ("test", "val", "train") if isinstance(parts[part], str)]
    return list(dict.fromkeys(name for names in named for name in split_names(names)))


def _tokens(config: DictConfig) -> Callable[[Captions], np.ndarray]:
    encoder = make(config.text_encoder)
    return lambda captions: token_table(captions, encoder, folder=None).lengths
