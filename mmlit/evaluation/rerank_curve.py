"""Reranking as a curve: what the costly score brings, and what it costs, with more and more candidates."""

from collections.abc import Sequence
from typing import NamedTuple

from mmlit.evaluation.ranking import Gallery, Score, rank_all
from mmlit.evaluation.recall import summarize
from mmlit.evaluation.reranking import Reranked, rerank_each

#: candidates per query; 0: the cheap score alone
KS = (0, 16, 32, 64, 128, 256)


class CurvePoint(NamedTuple):
    """Metrics of `summarize` with k candidates per query, and the queries per second of each direction."""

    k: int
    metrics: dict[str, float]
    i2t_queries_per_second: float
    t2i_queries_per_second: float

    def named(self) -> dict[str, float]:
        """R@1, rsum and speed under names that say k, for a record."""
        shown = {name: self.metrics[name] for name in ("i2t_r1", "t2i_r1", "rsum")}
        speed = {name: getattr(self, name) for name in ("i2t_queries_per_second", "t2i_queries_per_second")}
        return {f"rerank{self.k}_{name}": value for name, value in (shown | speed).items()}


def rerank_curve(
    score: Score,
    coarse: Score | None,
    gallery: Gallery,
    *,
    ks: Sequence[int] = KS,
    image_block: int,
    text_block: int,
) -> tuple[CurvePoint, ...]:
    """Recall and speed for each of `ks`, increasing; k ≥ 1 ranks as `rerank` with k candidates, 0 by `coarse` alone.

    The largest k's pairs are scored once, part after part; the first k of them are k's. Seconds are of finding the
    candidates among embedded items and of scoring them, measured over all queries; embedding is not in them. A k
    larger than the gallery means all of it.

    Args:
        score: the alignment's `score`.
        coarse: its `coarse`.
        gallery: what is ranked.
        ks: candidates per query, ≥ 0.
        image_block: as in `rank_all`.
        text_block: as in `rank_all`.

    Raises:
        ValueError: if there is no `coarse`, or nothing or less than 0 in `ks`; as `rerank`.
    """
    if coarse is None:
        name = type(getattr(score, "__self__", score)).__name__
        raise ValueError(f"{name} has no `coarse` score to find candidates with: there is nothing to rerank")
    if not ks or min(ks) < 0:
        raise ValueError(f"ks must be numbers >= 0, got {tuple(ks)}")
    blocks = {"image_block": image_block, "text_block": text_block}
    full = rank_all(coarse, gallery, **blocks)
    return tuple(_point(each) for each in rerank_each(coarse, score, gallery, full, nums_candidates=ks, **blocks))


def _point(reranked: Reranked) -> CurvePoint:
    num_images, num_texts = len(reranked.ranking.i2t_rank), len(reranked.ranking.t2i_rank)
    return CurvePoint(
        reranked.num_candidates,
        summarize(reranked.ranking),
        num_images / reranked.i2t_seconds,
        num_texts / reranked.t2i_seconds,
    )
