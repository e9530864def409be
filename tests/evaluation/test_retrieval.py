"""The one evaluator, as a metric."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.galleries import LookUp, captions, numbered
from evaluation.shares import COUNTS, MAX_TEXT_TOKENS, evaluated, pooled_cosine, rank_own_share, shares, token_score
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.ranking import Ranking
from mmlit.evaluation.retrieval import Retrieval, RetrievalResult, summarize

Score = Callable[[Encoded, Encoded], Tensor]


def metric(score: Score, *, coarse: Score | None = None, **options: Any) -> Retrieval:
    usual: dict[str, Any] = {
        "max_text_tokens": MAX_TEXT_TOKENS,
        "image_block": 8,
        "text_block": 16,
        "num_candidates": 4,
        "images": None,
        "captions_per_image": None,
        "folds": 1,
        "truths": (),
        "rerank_ks": (),
    }
    return Retrieval(score=score, coarse=coarse, **(usual | options))


def identity_score(image: Encoded, text: Encoded) -> Tensor:
    """The fake model: an embedding is an image's id, and the nearer two ids, the higher the score."""
    return -(image.pooled - text.pooled.T).abs()


def by_id(ids: list[int]) -> Encoded:
    none = torch.zeros(len(ids), 0)
    return Encoded(none[..., None], torch.tensor(ids)[:, None].float(), none.bool())


def update_by_id(evaluator: Retrieval, image_id: list[int], counts: list[int]) -> None:
    """All captions of these images, whose ids are 10 × the image's and up."""
    owner = [image for image, count in zip(image_id, counts, strict=True) for _ in range(count)]
    text_id = [10 * image + caption for image, n in zip(image_id, counts, strict=True) for caption in range(n)]
    ids = (torch.tensor(values) for values in (image_id, text_id, owner))
    evaluator.update(by_id(image_id), by_id(owner), *ids)


def same_result(one: RetrievalResult, other: RetrievalResult) -> bool:
    return one.metrics == other.metrics and all(
        torch.equal(left, right)
        for left, right in zip((*one.ranking, *one.gallery[2:]), (*other.ranking, *other.gallery[2:]), strict=True)
    )


@pytest.mark.parametrize("coarse", [None, identity_score])
def test_a_model_whose_embedding_is_its_id_is_perfect(coarse: Score | None) -> None:
    """Trap 7: with one to seven captions per image, in ids that are neither dense nor sorted."""
    evaluator = metric(identity_score, coarse=coarse)
    update_by_id(evaluator, [40, 7, 23], [3, 7, 1])
    update_by_id(evaluator, [9, 1001], [2, 5])
    result = evaluator.compute()
    recalls = {name: value for name, value in result.metrics.items() if "rank" not in name and name != "rsum"}
    assert recalls == dict.fromkeys([f"{d}_r{k}" for d in ("i2t", "t2i") for k in (1, 5, 10)], 100.0)
    assert result.metrics["rsum"] == 600
    assert result.metrics["i2t_median_rank"] == result.metrics["t2i_median_rank"] == 1
    assert result.scored == ("full" if coarse is None else "rerank@4")
    assert result.gallery.image_id.tolist() == [7, 9, 23, 40, 1001]
    assert result.gallery.text_image_id.tolist() == [7] * 7 + [9] * 2 + [23] + [40] * 3 + [1001] * 5
    assert (result.gallery.text_id // 10).equal(result.gallery.text_image_id)


def test_a_model_that_knows_nothing_is_at_chance() -> None:
    """Trap 1: constant embeddings score nothing at all."""
    evaluator = metric(lambda image, text: torch.zeros(len(image.pooled), len(text.pooled)))
    update_by_id(evaluator, list(range(1, 41)), [5] * 40)
    assert evaluator.compute().metrics["rsum"] == 0


def test_numbers_by_hand() -> None:
    """Hit rates in percent, the middle of two median ranks, rsum the sum of the six (trap 6)."""
    ranks_i, ranks_t = torch.tensor([1, 2, 6, 11]), torch.tensor([1, 1, 5, 10, 40])
    metrics = summarize(Ranking(ranks_i, torch.empty(4, 10), ranks_t, torch.empty(5, 10)))
    assert metrics == {
        "i2t_r1": 25.0,
        "i2t_r5": 50.0,
        "i2t_r10": 75.0,
        "i2t_median_rank": 4.0,
        "t2i_r1": 40.0,
        "t2i_r5": 60.0,
        "t2i_r10": 80.0,
        "t2i_median_rank": 5.0,
        "rsum": 330.0,
    }


def test_repeated_ids_count_once() -> None:
    """Trap 5: a padding sampler brings images 1 and 9 again, once in a batch of their own and once beside others."""
    plain, repeated = (metric(identity_score, image_block=3, text_block=4) for _ in range(2))
    update_by_id(plain, [1, 9, 4, 30, 12], [5, 2, 6, 7, 1])
    update_by_id(repeated, [1, 9], [5, 2])
    update_by_id(repeated, [4, 30, 12, 9], [6, 7, 1, 2])
    update_by_id(repeated, [1], [5])
    result = repeated.compute()
    assert same_result(result, plain.compute())
    assert len(result.gallery.image_id) == 5
    assert len(result.gallery.text_id) == len(result.ranking.t2i_rank) == 21


@pytest.mark.parametrize("tokens", [False, True])
def test_order_and_size_of_batches_do_not_matter(tokens: bool) -> None:
    """Also for tokens of different lengths, with reranking: the same numbers to the last digit."""
    images = list(range(len(COUNTS)))
    one = evaluated(images, tokens=tokens)
    assert one.metrics["i2t_median_rank"] + one.metrics["t2i_median_rank"] > 10, "scores of random vectors"
    for seed in (1, 2):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
        assert same_result(evaluated(order, tokens=tokens), one)


def test_captions_of_an_image_lie_side_by_side() -> None:
    """Text ids in no relation to the images: the first pass then finds the true pairs in few blocks."""
    score = LookUp(-(torch.arange(10)[:, None] - torch.arange(50) % 10).abs().float())
    evaluator = metric(score, image_block=2, text_block=10)
    text_id = torch.arange(50)
    evaluator.update(numbered(10), numbered(50), torch.arange(10), text_id, text_id % 10)
    result = evaluator.compute()
    assert result.gallery.text_image_id.tolist() == captions([5] * 10)
    assert result.gallery.text_id.tolist() == [image + 10 * caption for image in range(10) for caption in range(5)]
    assert result.metrics["rsum"] == 600
    assert len(score.asked) == 5 + 5 * 5


def test_texts_of_different_lengths_are_padded_and_masked() -> None:
    """What the score is asked for is what each text was alone, and no longer than it must be."""
    evaluator = metric(token_score, image_block=2, text_block=3)
    given = shares([0], tokens=True) + shares([1, 2, 3, 4], tokens=True)
    widths = {share.text.tokens.shape[1] for share in given}
    for share in given:
        evaluator.update(*share)
    gallery = evaluator._gallery()
    assert len(widths) > 1
    assert max(widths) < gallery.text.tokens.shape[1] == MAX_TEXT_TOKENS
    scores = token_score(gallery.image, gallery.text)
    for share in given:
        alone = token_score(gallery.image, share.text)
        at = [gallery.text_id.tolist().index(text_id) for text_id in share.text_id.tolist()]
        torch.testing.assert_close(scores[:, at], alone)


def test_a_text_longer_than_the_encoder_allows_is_refused() -> None:
    evaluator, share = metric(token_score, max_text_tokens=3), shares([1], tokens=True)[0]
    with pytest.raises(ValueError, match=r"texts have 6 tokens, more than 3"):
        evaluator.update(*share)


def test_low_precision_embeddings_are_kept_and_scored_in_fp32() -> None:
    """Trap 3: bf16 embeddings are widened when they arrive, so that their products are fp32."""
    seen: list[torch.dtype] = []

    def score(image: Encoded, text: Encoded) -> Tensor:
        seen.extend(part.dtype for part in (image.tokens, image.pooled, text.tokens, text.pooled))
        return pooled_cosine(image, text)

    evaluator = metric(score)
    given = shares(list(range(8)), tokens=True)
    low = [share._replace(**{side: _rounded(getattr(share, side)) for side in ("image", "text")}) for share in given]
    for share in low:
        evaluator.update(*share)
    result = evaluator.compute()
    assert set(seen) == {torch.float32}
    wide = metric(pooled_cosine)
    for share in low:
        sides = {side: Encoded(*(part.float() for part in getattr(share, side)[:2]), getattr(share, side).mask)
                 for side in ("image", "text")}  # fmt: skip
        wide.update(*share._replace(**sides))
    assert same_result(result, wide.compute())


def test_nothing_is_kept_of_the_graph() -> None:
    evaluator = metric(identity_score)
    image = by_id([1, 2])
    attached = image._replace(pooled=image.pooled.requires_grad_() * 1)
    evaluator.update(attached, by_id([1, 2]), *(torch.tensor([1, 2]) for _ in range(3)))
    assert not evaluator.image_pooled[0].requires_grad


def test_scores_never_lie_in_one_piece() -> None:
    """Memory: the largest block of scores is as large as the evaluator's options say, not N × M."""
    owner = captions([5] * 40)
    for coarse in (None, LookUp(torch.rand(40, 200))):
        score = LookUp(torch.rand(40, 200))
        evaluator = metric(score, coarse=coarse, image_block=4, text_block=30)
        evaluator.update(numbered(40), numbered(200), torch.arange(40), torch.arange(200), torch.tensor(owner))
        evaluator.compute()
        assert score.largest == (4 * 30 if coarse is None else 4)
        if coarse is not None:
            assert coarse.largest == 4 * 200  # a block of queries against the other side's whole gallery


@pytest.mark.parametrize("coarse", [None, identity_score])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_a_gallery_of_one_image(count: int, coarse: Score | None) -> None:
    """Trap 19: nothing to confuse it with; the tops hold what there is."""
    evaluator = metric(identity_score, coarse=coarse, num_candidates=50)
    update_by_id(evaluator, [3], [count])
    result = evaluator.compute()
    assert result.metrics["rsum"] == 600
    assert result.ranking.t2i_top.tolist() == [[0] + [-1] * 9] * count
    assert result.ranking.i2t_top.tolist() == [(list(range(count)) + [-1] * 10)[:10]]


def test_reset_forgets() -> None:
    evaluator = metric(identity_score)
    update_by_id(evaluator, [1, 2, 3], [1, 1, 1])
    evaluator.compute()
    evaluator.reset()
    update_by_id(evaluator, [8, 9], [2, 2])
    assert evaluator.compute().gallery.image_id.tolist() == [8, 9]


def test_a_score_that_is_not_finite_raises() -> None:
    """Trap 2, through the metric: the ids in the message are the data set's."""
    evaluator = metric(lambda image, text: identity_score(image, text) / (text.pooled.T != 9))
    update_by_id(evaluator, [4, 9], [1, 2])
    with pytest.raises(ValueError, match=r"score of image id 4 with text id 90 is -inf; only finite scores"):
        evaluator.compute()


@pytest.mark.parametrize("name", ["image_block", "text_block", "num_candidates"])
def test_wrong_options_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"evaluator\.{name} must be >= 1, got 0"):
        metric(identity_score, **{name: 0})


@pytest.mark.slow
def test_two_processes_with_uneven_shares_give_the_numbers_of_one(tmp_path: Path) -> None:
    """Traps 4 and 5: each rank has the whole gallery's numbers, not the mean over shares; two images come twice."""
    images = list(range(len(COUNTS)))
    images_of_rank = [[*images[:6], 20], [*images[6:], 0]]
    context = torch.multiprocessing.start_processes(
        rank_own_share, args=(images_of_rank, str(tmp_path)), nprocs=2, start_method="spawn"
    )
    assert context is None, "both processes must have ended well"
    for at, tokens in enumerate((False, True)):
        single = evaluated(images, tokens=tokens)
        expected = (single.metrics, tuple(single.ranking), *single.gallery[2:], single.scored)
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)[at]
            _same(found, expected)
        alone = [evaluated(share, tokens=tokens).metrics["t2i_r1"] for share in images_of_rank]
        assert sum(alone) / 2 > single.metrics["t2i_r1"], "averaged shares would look better"


def _rounded(encoded: Encoded) -> Encoded:
    return Encoded(encoded.tokens.bfloat16(), encoded.pooled.bfloat16(), encoded.mask)


def _same(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            _same(left, right)
    else:
        assert one == other
