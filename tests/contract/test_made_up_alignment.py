"""A fifth alignment is one module, one yaml and one test: no line of the project changes for it."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from contract.alignment_checks import CHECKS, Build
from contract.alignment_inputs import IMAGE, TEXT, batch_of, scores_of
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mmlit.configuration.binding import problems
from mmlit.contracts import Alignment
from mmlit.evaluation.retrieval import Retrieval

CONF = Path(__file__).parents[2] / "conf"
NAME = "bilinear_made_up"
MODULE = '''
"""A pair scores by a learned bilinear form of both pooled vectors."""

import torch
from torch import Tensor, nn

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.similarity import pooled_only
from mmlit.losses.info_nce import info_nce


class BilinearMadeUp(Alignment):
    def __init__(self, *, image: ImageSpec, text: TextSpec, rank: int) -> None:
        super().__init__()
        self.left = nn.Linear(image.dim, rank)
        self.right = nn.Linear(text.dim, rank, bias=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def embed_image(self, image: Encoded) -> Encoded:
        return pooled_only(self.left(image.pooled))

    def embed_text(self, text: Encoded) -> Encoded:
        return pooled_only(self.right(text.pooled))

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        scores = self.score(pairs.image, pairs.all_text)
        back = self.score(pairs.all_image, pairs.text).T
        return {
            "bilinear_i2t": info_nce(scores, pairs.positives(pairs.image_rows, slice(None))),
            "bilinear_t2i": info_nce(back, pairs.positives(slice(None), pairs.text_rows).T),
        }

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Not a cosine: the bilinear form itself."""
        with torch.autocast("cpu", enabled=False):
            return image.pooled.float() @ text.pooled.float().T

    def after_step(self, pairs: Pairs) -> None:
        self.steps += 1
'''
YAML = f"""_target_: {NAME}.BilinearMadeUp
rank: 48
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The whole composed configuration with the new alignment chosen by its name alone."""
    (tmp_path / "alignment").mkdir()
    (tmp_path / "alignment" / f"{NAME}.yaml").write_text(YAML, encoding="utf-8")
    (tmp_path / f"{NAME}.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"alignment={NAME}", f"hydra.searchpath=[file://{tmp_path}]"]
        composed = OmegaConf.to_container(compose("config", overrides=overrides))
    assert isinstance(composed, dict)
    yield composed
    sys.modules.pop(NAME, None)


def build(config: dict[str, Any]) -> Alignment:
    alignment = instantiate(config["alignment"], image=IMAGE, text=TEXT)
    assert isinstance(alignment, Alignment)
    return alignment


def test_it_is_composed_and_bound_like_the_others(config: dict[str, Any]) -> None:
    assert problems({"alignment": config["alignment"]}) == []
    misspelt = {"_target_": f"{NAME}.BilinearMadeUp", "ranc": 48}
    assert problems({"alignment": misspelt}) == [
        f"alignment.ranc: {NAME}.BilinearMadeUp has no such option",
        f"alignment.rank: missing, {NAME}.BilinearMadeUp needs it",
    ]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_contract(config: dict[str, Any], check: Callable[[Build], None]) -> None:
    check(lambda: build(config))


def test_the_evaluator_ranks_it(config: dict[str, Any]) -> None:
    """Before any training: the numbers are those of its own score, whatever the evaluator knows of it."""
    torch.manual_seed(0)
    alignment = build(config).eval()
    metric: Retrieval = instantiate(
        config["evaluator"], score=alignment.score, coarse=getattr(alignment, "coarse", None), max_text_tokens=12
    )
    given = batch_of(list(range(20)), list(range(20)))
    metric.update(alignment.embed_image(given.image), alignment.embed_text(given.text), *given[2:])
    result = metric.compute()
    scores = scores_of(alignment, given)
    expected = 100 * (scores.argmax(1) == torch.arange(20)).double().mean().item()
    assert result.scored == "full"
    assert result.metrics["i2t_r1"] == pytest.approx(expected)
