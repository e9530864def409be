"""Retrieval where a query has many positives, or graded ones."""

from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from mmlit.evaluation.place_metrics import ndcg, yes_or_no
from mmlit.evaluation.places import NEVER, judge, locate, places, sides
from mmlit.evaluation.plausible_match import plausible_match
from mmlit.evaluation.rank_correlation import sampled_spearman
from mmlit.evaluation.ranking import Gallery, Score
from mmlit.evaluation.truth import ImageLabels, Relevance, Truth


class Numbers(TypedDict):
    """What the evaluator's options say of both directions alike."""

    num_candidates: int
    image_block: int
    text_block: int


class ByQuery(NamedTuple):
    """A metric's value, in percent, for each query: `query_id` (Q,) rising, `value` (Q,) float64."""

    query_id: Tensor
    value: Tensor


class ManyPositives(NamedTuple):
    """Metrics in percent, and those of them that are means over queries query by query, under the same names."""

    metrics: dict[str, float]
    by_query: dict[str, ByQuery]


def many_positives(
    score: Score,
    coarse: Score | None,
    gallery: Gallery,
    truth: Truth | ImageLabels,
    *,
    num_candidates: int,
    image_block: int,
    text_block: int,
) -> ManyPositives:
    """Metrics `{truth.name}_{i2t,t2i}_{metric}` of the queries that the truth names, in the whole gallery.

    Yes or no: `map_at_r`, `r_precision`, `r1`, `r5`, `r10` (a hit on any positive). Grades: these of the positives,
    and `ndcg`, `ndcg10`, `spearman`. Labels: `pmrp`. Ties count against the model, see `places`.

    Raises:
        ValueError: if a score is not finite; if the gallery is not the one that the truth needs.
    """
    numbers: Numbers = {"num_candidates": num_candidates, "image_block": image_block, "text_block": text_block}
    found: dict[str, ByQuery] = {}
    if isinstance(truth, Truth):
        truth = _asked(truth, gallery)
    for direction, images_ask in (("i2t", True), ("t2i", False)):
        if isinstance(truth, ImageLabels):
            pmrp = plausible_match(score, coarse, gallery, truth, images_ask=images_ask, **numbers)
            values = {"pmrp": ByQuery(*pmrp)}
        else:
            relevance = truth.i2t if images_ask else truth.t2i
            place = places(score, coarse, gallery, relevance, images_ask=images_ask, **numbers)
            values = _values(truth, relevance, place.cpu())
        found |= {f"{truth.name}_{direction}_{metric}": value for metric, value in values.items()}
    metrics = {name: float(each.value.mean()) for name, each in found.items()}
    if isinstance(truth, Truth) and truth.graded:
        metrics |= _correlations(score, gallery, truth, image_block=image_block, text_block=text_block)
    return ManyPositives(metrics, found)


def _asked(truth: Truth, gallery: Gallery) -> Truth:
    """The truth without the queries that the gallery may lack.

    Raises:
        ValueError: if the gallery lacks any other id of the truth.
    """
    image_id, text_id = gallery.image_id.cpu(), gallery.text_id.cpu()
    _require(truth, "image", torch.cat([truth.i2t.query_id, truth.t2i.item_id]), image_id)
    _require(truth, "text", torch.cat([truth.t2i.query_id, truth.i2t.item_id]), text_id)
    here = torch.isin(truth.t2i.query_id, text_id)
    return truth._replace(t2i=Relevance(*(part[here] for part in truth.t2i)))


def _require(truth: Truth, side: str, named: Tensor, ids: Tensor) -> None:
    named = named.unique()
    missing = named[~torch.isin(named, ids)]
    if side == "text":
        missing = missing[~torch.isin(missing, truth.optional_text_id)]
    if len(missing):
        raise ValueError(
            f"{truth.name} names {len(named):,} {side}s, of which {len(missing):,} are not in the gallery of "
            f"{len(ids):,} (the first: {side} id {int(missing[0])}); it needs {truth.needs}"
        )


def _values(truth: Truth, relevance: Relevance, place: Tensor) -> dict[str, ByQuery]:
    positive = relevance.grade >= truth.threshold
    query_id, query = relevance.query_id[positive].unique(return_inverse=True)
    values = yes_or_no(query, place[positive], len(query_id))
    found = {metric: ByQuery(query_id, 100 * value) for metric, value in values.items()}
    if truth.graded:
        rated = relevance.grade > 0  # a query without any gain has no best order to compare with
        query_id, query = relevance.query_id[rated].unique(return_inverse=True)
        for metric, cut in (("ndcg", NEVER - 1), ("ndcg10", 10)):
            value = ndcg(query, place[rated], relevance.grade[rated], len(query_id), cut)
            found[metric] = ByQuery(query_id, 100 * value)
    return found


def _correlations(
    score: Score, gallery: Gallery, truth: Truth, *, image_block: int, text_block: int
) -> dict[str, float]:
    rated = torch.isin(truth.i2t.item_id, gallery.text_id.cpu())
    image_id, text_id, grade = (part[rated] for part in truth.i2t)
    images, texts = sides(gallery, images_ask=True, image_block=image_block, text_block=text_block)
    ask, values = judge(score, images_ask=True), torch.zeros(len(grade), device=images.ids.device)
    number, item = (locate(ids.to(side.ids.device), side.ids) for ids, side in ((image_id, images), (text_id, texts)))
    order = number.argsort(stable=True)
    different, counts = number[order].unique_consecutive(return_counts=True)
    # every pair by its score, also where the ranking asks it for candidates only
    for image, pairs in zip(different.split(1), order.split(counts.tolist()), strict=True):
        values[pairs] = ask(images.take(image), texts.take(item[pairs]))[0]
    correlation = {"i2t": image_id, "t2i": text_id}
    return {
        f"{truth.name}_{direction}_spearman": 100 * sampled_spearman(query_id, grade, values.cpu())
        for direction, query_id in correlation.items()
    }
