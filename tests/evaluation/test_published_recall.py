"""Recall at K as `clip_benchmark` computes it, on the same scores."""

import pytest
import torch
from clip_benchmark.metrics.zeroshot_retrieval import recall_at_k
from evaluation.galleries import LookUp, captions, gallery

from mmlit.evaluation.ranking import rank_all
from mmlit.evaluation.recall import KS, summarize


@pytest.mark.parametrize("counts", [[5] * 60, [1, 7, 2, 5, 3, 6, 4] * 8], ids=["five captions", "one to seven"])
@pytest.mark.parametrize("planted", [0.0, 0.6])
def test_recall_equals_that_of_clip_benchmark(counts: list[int], planted: float) -> None:
    """Traps 6 and 7: theirs counts a query if any of its positives is among the first K."""
    owner = captions(counts)
    scores = torch.rand(len(counts), len(owner), generator=torch.Generator().manual_seed(7))
    scores[owner, torch.arange(len(owner))] += planted
    positive = torch.zeros(len(owner), len(counts), dtype=torch.bool)
    positive[torch.arange(len(owner)), owner] = True
    metrics = summarize(rank_all(LookUp(scores), gallery(owner, len(counts)), image_block=16, text_block=50))
    for k in KS:
        t2i = (recall_at_k(scores.T, positive, k) > 0).double().mean().item()
        i2t = (recall_at_k(scores, positive.T, k) > 0).double().mean().item()
        assert metrics[f"t2i_r{k}"] == pytest.approx(100 * t2i)
        assert metrics[f"i2t_r{k}"] == pytest.approx(100 * i2t)
    assert 0 < metrics["t2i_r1"] < 100
