"""ECCV Caption and CxC: the published positives, and the numbers of the published code."""

import warnings
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.eccv_caption import EccvCaption
from mmlit.evaluation.many_positives import many_positives
from mmlit.evaluation.ranking import Gallery, rank_all
from mmlit.evaluation.truth import Relevance, Truth

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says that a faster JSON reader exists
    from eccv_caption import Metrics
    from eccv_caption._metrics import compute_r_at_k

WIDTH = 6
NUMBERS = {"num_candidates": 1, "image_block": 100, "text_block": 500}


def read(positives: Literal["eccv", "cxc"]) -> Truth:
    return EccvCaption(root="nowhere", split="test", positives=positives).read()


@cache
def published() -> Any:
    return Metrics()


@cache
def gallery(num_images: int) -> Gallery:
    """Test images with their five captions: real ids, embeddings of whole numbers, whose products are exact.

    Planted: a caption's is near its image's, by chance nearer to another's now and then.
    """
    own = published().coco_gts["i2t"]
    image_id = torch.tensor(sorted(own)[:num_images])
    text_id = torch.tensor([text for image in image_id.tolist() for text in own[image]])
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(-900, 901, (num_images, WIDTH), generator=generator).float()
    text = image.repeat_interleave(5, 0) + torch.randint(-500, 501, (5 * num_images, WIDTH), generator=generator)
    return Gallery(encoded(image), encoded(text), image_id, text_id, image_id.repeat_interleave(5))


def encoded(pooled: Tensor) -> Encoded:
    return Encoded(torch.zeros(len(pooled), 0, 1), pooled, torch.zeros(len(pooled), 0, dtype=torch.bool))


def planted(gal: Gallery) -> Gallery:
    return gal


def random(gal: Gallery) -> Gallery:
    """Embeddings that know nothing."""
    draws = torch.randint(-900, 901, gal.text.pooled.shape, generator=torch.Generator().manual_seed(1))
    return gal._replace(text=encoded(draws.float()))


def coarse_steps(gal: Gallery) -> Gallery:
    """Embeddings of very few values, so that equal scores abound."""
    return gal._replace(image=encoded((gal.image.pooled / 500).round()), text=encoded((gal.text.pooled / 500).round()))


def product(image: Encoded, text: Encoded) -> Tensor:
    return image.pooled @ text.pooled.T


def orders(gal: Gallery, relevance: Relevance, *, images_ask: bool) -> dict[int, np.ndarray]:
    """Each query's complete list of item ids as the published code wants it: equal scores with the wrong ones first."""
    scores = product(gal.image, gal.text).numpy()
    scores, asks, finds = (scores, gal.image_id, gal.text_id) if images_ask else (scores.T, gal.text_id, gal.image_id)
    true: dict[int, list[int]] = {}
    for query, item in zip(relevance.query_id.tolist(), relevance.item_id.tolist(), strict=True):
        true.setdefault(query, []).append(item)
    at = {query: row for row, query in enumerate(asks.tolist())}
    items, found = finds.numpy(), {}
    for query, own in true.items():
        # keys twice the whole score plus one for a wrong item: whole numbers, exact as doubles
        key = 2 * scores[at[query]].astype(np.float64) + 1
        key[np.isin(items, own)] -= 1
        found[query] = items[np.argsort(-key)]
    return found


def test_the_published_counts() -> None:
    """The table of the paper's repository: 1,261 images with 22,550 captions, 1,332 captions with 11,279 images."""
    eccv, cxc = read("eccv"), read("cxc")
    assert (len(eccv.i2t.query_id.unique()), len(eccv.i2t.item_id)) == (1261, 22550)
    assert (len(eccv.t2i.query_id.unique()), len(eccv.t2i.item_id)) == (1332, 11279)
    assert eccv.optional_text_id.tolist() == [144675, 467259]
    assert (len(cxc.i2t.query_id.unique()), len(cxc.i2t.item_id)) == (5000, 35585)
    assert (len(cxc.t2i.query_id.unique()), len(cxc.t2i.item_id)) == (24972, 35585)
    assert not len(cxc.optional_text_id)
    assert {eccv.name, cxc.name} == {"eccv", "cxc"}
    assert eccv.fingerprint() != cxc.fingerprint() == read("cxc").fingerprint()


@pytest.mark.parametrize(
    "embeddings", [planted, *(pytest.param(each, marks=pytest.mark.slow) for each in (random, coarse_steps))]
)
def test_eccv_caption_equals_the_published_code(embeddings: Any) -> None:
    """Full rankings of the whole gallery of 5,000 × 25,000, every query; also where scores tie (trap 1)."""
    gal, truth = embeddings(gallery(5000)), read("eccv")
    ours = many_positives(product, None, gal, truth, **NUMBERS).metrics
    i2t, t2i = orders(gal, truth.i2t, images_ask=True), orders(gal, truth.t2i, images_ask=False)
    retrieved = {"i2t": i2t, "t2i": t2i}
    theirs = published().eccv_metrics(retrieved, "all")
    recalls = {k: published().eccv_recalls(retrieved, "all", K=k) for k in (1, 5, 10)}
    for direction in ("i2t", "t2i"):
        expected = {
            "map_at_r": theirs["eccv_map_at_r"][direction],
            "r_precision": theirs["eccv_rprecision"][direction],
            **{f"r{k}": recall[direction] for k, recall in recalls.items()},
        }
        found = {metric: ours[f"eccv_{direction}_{metric}"] / 100 for metric in expected}
        assert found == pytest.approx(expected, abs=1e-12)
    assert len(ours) == 10


def cut(gal: Gallery, truth: Truth) -> Truth:
    """The pairs whose both sides are in a smaller gallery."""
    inside = [
        torch.isin(one.query_id, asks) & torch.isin(one.item_id, finds)
        for one, asks, finds in ((truth.i2t, gal.image_id, gal.text_id), (truth.t2i, gal.text_id, gal.image_id))
    ]
    return truth._replace(
        i2t=Relevance(*(part[inside[0]] for part in truth.i2t)),
        t2i=Relevance(*(part[inside[1]] for part in truth.t2i)),
    )


@pytest.mark.parametrize(
    ("num_images", "embeddings"),
    [(600, planted), (600, coarse_steps), pytest.param(5000, planted, marks=pytest.mark.slow)],
)
def test_cxc_equals_the_published_code(num_images: int, embeddings: Any) -> None:
    gal = embeddings(gallery(num_images))
    truth = cut(gal, read("cxc"))
    ours = many_positives(product, None, gal, truth, **NUMBERS).metrics
    metrics = Metrics.__new__(Metrics)  # the published code on the smaller gallery's truth
    metrics.verbose, metrics.cxc_gts = False, {}
    retrieved = {}
    for direction, relevance in (("i2t", truth.i2t), ("t2i", truth.t2i)):
        retrieved[direction] = orders(gal, relevance, images_ask=direction == "i2t")
        metrics.cxc_gts[direction] = {query: [] for query in relevance.query_id.tolist()}
        for query, item in zip(relevance.query_id.tolist(), relevance.item_id.tolist(), strict=True):
            metrics.cxc_gts[direction][query].append(item)
    if num_images == 5000:
        as_sets = [
            {query: set(items) for query, items in gts["t2i"].items()} for gts in (metrics.cxc_gts, published().cxc_gts)
        ]
        assert as_sets[0] == as_sets[1]
    for k in (1, 5, 10):
        theirs = metrics.cxc_recalls(retrieved, "all", K=k)
        for direction in ("i2t", "t2i"):
            assert ours[f"cxc_{direction}_r{k}"] / 100 == pytest.approx(theirs[direction], abs=1e-12)


@pytest.mark.parametrize("embeddings", [planted, random, coarse_steps])
def test_the_standard_recall_equals_the_published_code(embeddings: Any) -> None:
    """Trap 6: a hit on any of an image's captions; the ranks of the evaluator against the package's recall."""
    gal = embeddings(gallery(600))
    ranking = rank_all(product, gal, image_block=100, text_block=500)
    both = (gal.text_image_id, gal.text_id)
    for rank, (asks, finds), images_ask in ((ranking.i2t_rank, both, True), (ranking.t2i_rank, both[::-1], False)):
        own = Relevance(asks, finds, torch.ones(len(asks)))
        retrieved = orders(gal, own, images_ask=images_ask)
        true = {query: finds[asks == query].tolist() for query in asks.unique().tolist()}
        for k in (1, 5, 10):
            assert (rank <= k).double().mean().item() == pytest.approx(compute_r_at_k(retrieved, true, K=k), abs=1e-12)


def test_another_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split=val: ECCV Caption has positives for the test split"):
        EccvCaption(root="nowhere", split="val", positives="eccv")
    with pytest.raises(ValueError, match="positives must be eccv or cxc, got coco"):
        EccvCaption(root="nowhere", split="test", positives="coco")  # type: ignore[arg-type]


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmlit.evaluation.eccv_caption.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[eccv\]'"):
        EccvCaption(root="nowhere", split="test", positives="eccv")


def test_a_gallery_of_something_else_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"eccv names .* images, of which .*it needs all 5,000 test images of Karpathy"
    ):
        many_positives(product, None, gallery(600), read("eccv"), **NUMBERS)
