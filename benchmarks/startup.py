"""How long `python train.py experiment=smoke` takes to its first optimizer step, beside importing its libraries alone.

`python benchmarks/startup.py` makes the scenes first and runs once unmeasured, so that files are in memory and captions
are tokenized. Then fresh processes take turns: one that imports torch, lightning and transformers and does nothing, and
train.py, which ends right after its first optimizer step. Each run of it has an outputs folder of its own, the cache is
shared, as in a second run of a user. Medians of wall-clock time, from the start of the process to its end.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = "import torch, lightning, transformers, os; os._exit(0)"
#: train.py as it is, but that it ends behind the first optimizer step
FIRST_STEP = """
import os, runpy, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(7))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
GOAL = 1.3


def seconds(code: str, *words: str, expected: int) -> float:
    """Wall-clock time of a fresh process that runs `code` and must end with the exit code `expected`."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - start
    if done.returncode != expected:
        raise SystemExit(f"a process ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return taken


def main() -> None:
    """Prints a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="25 rounds in place of 9")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # modules lie compiled, as in any second run
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        data, taken = Path(folder) / "data", {"imports alone": [], "first optimizer step": []}
        scenes = [sys.executable, "-m", "mmlit.cli", "data", "scenes", "--root", str(data / "scenes")]
        subprocess.run(scenes, cwd=ROOT, check=True, capture_output=True)

        def first_step(number: int) -> float:
            paths = [f"paths.data={data}", f"paths.outputs={folder}/{number}", f"paths.cache={folder}/cache"]
            return seconds(FIRST_STEP, "train.py", "experiment=smoke", *paths, expected=7)

        seconds(IMPORTS, expected=0)
        cold = first_step(0)
        for number in range(1, 26 if options.full else 10):
            taken["imports alone"].append(seconds(IMPORTS, expected=0))
            taken["first optimizer step"].append(first_step(number))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    alone, step = middle.values()
    print(f"{'':<24}{'seconds':>9}{'ratio':>8}")
    for name, value in middle.items():
        print(f"{name:<24}{value:>9.2f}{value / alone:>8.2f}")
    print(f"{'very first run':<24}{cold:>9.2f}{cold / alone:>8.2f}")
    results = [
        {"name": "first step / imports alone", "value": round(step / alone, 3), "goal": f"<= {GOAL}",
         "met": step / alone <= GOAL},
        {"name": "very first run / imports alone", "value": round(cold / alone, 3), "goal": None, "met": None},
    ]  # fmt: skip
    print(json.dumps({"benchmark": "startup", "results": results}))


if __name__ == "__main__":
    main()
