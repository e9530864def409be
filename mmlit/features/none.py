"""No store: a choice of its own, since Hydra sets no group to null on the command line."""

from collections.abc import Mapping
from typing import Any


class NoStores:
    """Leaves everything to the encoders."""

    def fill(self, readers: Mapping[str, Any], towers: Mapping[str, Any], *, tokens: bool, manner: Any) -> bool:
        """As `mmlit.features.stores.FeatureStores.fill`; there is none."""
        return False
