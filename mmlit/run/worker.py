"""One of the processes that torchrun starts for a run on several devices: `python -m mmlit.run.worker JOB.json`."""

import logging
import os
import sys
import threading
from pathlib import Path

from hydra.errors import InstantiationException
from torch.distributed.elastic.multiprocessing.errors import record

from mmlit.jobs.pool import end_with_parent
from mmlit.run.devices import read_job
from mmlit.run.fit import run


@record
def main() -> None:
    """Runs the job of the file; ends when torchrun's process does."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    level = logging.INFO if os.environ["RANK"] == "0" else logging.WARNING  # one of them speaks
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    try:
        run(read_job(Path(sys.argv[1])))
    except InstantiationException as error:  # its last line, which will be shown, says only where
        raise ValueError(str(error.__cause__ or error)) from error


if __name__ == "__main__":
    main()
