"""Compare image-text alignment strategies: same encoders, pairs, budget and evaluator for all of them."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmlit.model import Model

__all__ = ["load"]


def load(path: str | Path, *, device: str = "cpu") -> "Model":
    """The trained model of a run's folder or of a checkpoint: `encode_images`, `encode_texts`, `score`.

    See `mmlit.model.load` for arguments and errors.
    """
    from mmlit.model import load as load_model  # importing the package stays light

    return load_model(path, device=device)
