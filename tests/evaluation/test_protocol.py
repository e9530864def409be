"""Published protocols: which captions count, in which folds, in which order."""

from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.galleries import LookUp, numbered
from torch import Tensor

from mmlit.evaluation.protocol import Split
from mmlit.evaluation.ranking import Gallery, rank_all
from mmlit.evaluation.retrieval import Retrieval, RetrievalResult, summarize

IMAGES, CAPTIONS = 12, 6
OWNER = torch.arange(IMAGES).repeat_interleave(CAPTIONS)


def evaluator(score: LookUp, **rules: Any) -> Retrieval:
    usual: dict[str, Any] = {"images": None, "captions_per_image": None, "folds": 1, "truths": (), "rerank_ks": ()}
    return Retrieval(
        score=score, coarse=None, max_text_tokens=4, image_block=5, text_block=7, num_candidates=3, **(usual | rules)
    )


def evaluated(score: LookUp, *, split: Split | None = None, **rules: Any) -> RetrievalResult:
    """Twelve images with six captions each: image n has id n, its captions have 6n … 6n + 5."""
    metric = evaluator(score, **rules)
    metric.begin(split or split_of(torch.arange(IMAGES), torch.arange(IMAGES * CAPTIONS)))
    metric.update(
        numbered(IMAGES), numbered(IMAGES * CAPTIONS), torch.arange(IMAGES), torch.arange(IMAGES * CAPTIONS), OWNER
    )
    return metric.compute()


def split_of(images: Tensor, texts: Tensor) -> Split:
    return Split("test", Path("somewhere"), images, texts)


def random_scores() -> LookUp:
    return LookUp(torch.rand(IMAGES, IMAGES * CAPTIONS, generator=torch.Generator().manual_seed(3)))


def expected(scores: Tensor, images: list[int], texts: list[int]) -> dict[str, float]:
    """The same metrics of a part of the gallery, ranked by itself."""
    look_up = LookUp(scores[images][:, texts])
    gallery = Gallery(
        numbered(len(images)), numbered(len(texts)), torch.tensor(images), torch.tensor(texts), OWNER[texts]
    )
    return summarize(rank_all(look_up, gallery, image_block=4, text_block=9))


def test_five_captions_are_the_first_five_of_the_file() -> None:
    """Trap 6: the sixth caption is no target and no distractor; first is what stands first in the file."""
    score = random_scores()
    in_file = torch.arange(IMAGES * CAPTIONS).view(IMAGES, CAPTIONS).flip(1).flatten()  # ids fall within an image
    result = evaluated(score, split=split_of(torch.arange(IMAGES), in_file), captions_per_image=5)
    kept = [text for text in range(IMAGES * CAPTIONS) if text % CAPTIONS != 0]
    assert sorted(result.gallery.text_id.tolist()) == kept
    assert result.metrics == pytest.approx(expected(score.scores, list(range(IMAGES)), kept))
    assert result.protocol["captions_per_image"] == 5
    assert result.metrics != pytest.approx(evaluated(score).metrics)


def test_an_image_with_too_few_captions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"evaluator\.captions_per_image=7: image id 0 has 6 captions"):
        evaluated(random_scores(), captions_per_image=7)


def test_folds_are_runs_of_the_files_order_and_their_metrics_are_averaged() -> None:
    """Trap 6: 1K is the mean of five folds of a thousand images."""
    score = random_scores()
    order = torch.tensor([3, 0, 11, 7, 1, 2, 10, 9, 4, 8, 5, 6])
    result = evaluated(score, split=split_of(order, torch.arange(IMAGES * CAPTIONS)), folds=3)
    each = []
    for images in order.view(3, 4).tolist():
        texts = [text for text in range(IMAGES * CAPTIONS) if text // CAPTIONS in images]
        each.append(expected(score.scores, images, texts))
    for name, value in result.metrics.items():
        assert value == pytest.approx(sum(one[name] for one in each) / 3), name
    assert result.ranking.t2i_rank.max() <= 4
    assert result.protocol["folds"] == 3


def test_the_best_of_a_fold_are_numbers_in_the_whole_gallery() -> None:
    score = random_scores()
    order = torch.tensor([3, 0, 11, 7, 1, 2, 10, 9, 4, 8, 5, 6])
    result = evaluated(score, split=split_of(order, torch.arange(IMAGES * CAPTIONS)), folds=3)
    gallery, tops = result.gallery, result.ranking.t2i_top
    for text, top in zip(gallery.text_id.tolist(), tops.tolist(), strict=True):
        fold = next(images for images in order.view(3, 4).tolist() if text // CAPTIONS in images)
        by_score = sorted(fold, key=lambda image: -float(score.scores[image, text]))
        assert [int(gallery.image_id[number]) for number in top if number >= 0] == by_score


def test_folds_that_do_not_come_out_even_are_refused() -> None:
    with pytest.raises(ValueError, match=r"evaluator\.folds=5: 12 images cannot be shared out evenly"):
        evaluated(random_scores(), folds=5)


def test_another_number_of_images_than_the_protocols_is_refused() -> None:
    with pytest.raises(ValueError, match=r"evaluator\.images=5,000: .* split test of somewhere gave 12"):
        evaluated(random_scores(), images=5000)
    with pytest.raises(ValueError, match=r"evaluator\.images=5,000: .* split test of somewhere gave 12"):
        evaluated(random_scores(), split=split_of(torch.arange(5000), torch.arange(25000)), images=5000)


def test_another_number_of_images_is_refused_before_anything_is_encoded() -> None:
    with pytest.raises(ValueError, match=r"evaluator\.images=5,000: .* split test of somewhere gave 12"):
        evaluator(random_scores(), images=5000).begin(split_of(torch.arange(IMAGES), torch.arange(72)))


def test_a_line_is_told_before_the_ranking(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    evaluated(random_scores())
    assert caplog.messages == ["ranking 12 images x 72 texts"]


def test_an_item_that_the_split_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="image id 11 is not in the reported split"):
        evaluated(random_scores(), split=split_of(torch.arange(11), torch.arange(IMAGES * CAPTIONS)), folds=3)


def test_selection_is_ranked_without_the_rules() -> None:
    """While training, another split is seen, which no protocol speaks of."""
    score = random_scores()
    metric = evaluator(score, images=5000, captions_per_image=5, folds=5)
    metric.begin(None)
    metric.update(
        numbered(IMAGES), numbered(IMAGES * CAPTIONS), torch.arange(IMAGES), torch.arange(IMAGES * CAPTIONS), OWNER
    )
    assert metric.compute().metrics == evaluated(score).metrics


@pytest.mark.parametrize("option", ["images", "captions_per_image", "folds"])
def test_rules_out_of_range(option: str) -> None:
    with pytest.raises(ValueError, match=rf"evaluator\.{option} must be >= 1, got 0"):
        evaluator(random_scores(), **{option: 0})
