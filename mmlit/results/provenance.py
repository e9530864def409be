"""Where a result comes from: code, versions, machine."""

import os
import platform
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parents[1]
_VERSIONS = ("torch", "lightning", "torchvision", "transformers", "torchmetrics", "hydra-core", "mmlit")


def code() -> dict[str, Any]:
    """Commit of the checkout (None outside of one), whether it has changes, and a hash of the package's sources."""
    commit = _git("rev-parse", "HEAD")
    digest = sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "commit": commit,
        "dirty": bool(commit and _git("status", "--porcelain")),
        "hash": digest.hexdigest()[:16],
    }


def environment(*, device: str, threads: int) -> dict[str, Any]:
    """Versions and the kind of machine; no names, no paths."""
    return {
        "python": platform.python_version(),
        **{name.replace("-", "_"): version(name) for name in _VERSIONS},
        "platform": f"{sys.platform}-{platform.machine()}",
        "cores": os.cpu_count(),
        "device": device,
        "threads": threads,
    }


def _git(*arguments: str) -> str | None:
    """What git says of the checkout that holds the package, or None where there is no git or no checkout."""
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=_PACKAGE, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
