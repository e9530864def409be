"""Several devices, one process each."""

import inspect

from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel


class Ddp(DDPStrategy):
    """Lightning's, without a broadcast of buffers in each forward pass.

    Evaluation shares may be uneven, and a device with one batch more would wait in that broadcast for ever. Nothing
    needs it: statistics of batch norms are synchronized or frozen, queues take the same global batch everywhere, all
    else that is no parameter is a constant.
    """

    def __init__(self) -> None:
        # the older name is deprecated since torch 2.13, the newer one is not known before
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        super().__init__(**{option: False})  # type: ignore[arg-type]

    def wrap_again(self) -> None:
        """DDP made anew, on every device at once: only then does it learn which parameters have a gradient."""
        if isinstance(self.model, DistributedDataParallel):
            self.model._remove_autograd_hooks()
            self.model = self.lightning_module
            self.configure_ddp()
