"""What an embedding space looks like beside its recall: gap, spread, rank, hubs, agreement of the two sides."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlit.evaluation.nearest import best
from mmlit.evaluation.ranking import Gallery, Ranking, owners

#: vectors that are compared with others at a time
BLOCK = 512
#: neighbours of an item in `mutual_knn`, fewer where there are not as many
NEIGHBOURS = 10


def diagnose(gallery: Gallery, ranking: Ranking, *, num_words: Tensor | None) -> dict[str, float]:
    """All diagnostics of an evaluated gallery: exact, over all items, in memory that grows with N + M.

    They look at the pooled vectors, made unit length, and at the ranking. `num_words` (M,) counts each text's words,
    in the gallery's order; without it there is no recall by length.

    Raises:
        ValueError: if there are fewer than two images or texts, or `num_words` has not one number per text.
    """
    num_images, num_texts = len(gallery.image_id), len(gallery.text_id)
    if min(num_images, num_texts) < 2:
        raise ValueError(f"diagnostics need at least 2 images and 2 texts, got {num_images} and {num_texts}")
    image, text = (F.normalize(side.pooled.float(), dim=1) for side in (gallery.image, gallery.text))
    owner = owners(gallery)
    numbers = {
        "modality_gap": modality_gap(image, text),
        "pair_alignment": pair_alignment(image[owner], text),
        "image_uniformity": uniformity(image),
        "text_uniformity": uniformity(text),
        "image_effective_rank": effective_rank(image),
        "text_effective_rank": effective_rank(text),
        "i2t_hubness": hubness(ranking.i2t_top, num_texts),
        "t2i_hubness": hubness(ranking.t2i_top, num_images),
        "mutual_knn": mutual_knn(image, F.normalize(torch.zeros_like(image).index_add_(0, owner, text), dim=1)),
    }
    return numbers if num_words is None else numbers | recall_by_length(ranking.t2i_rank, num_words)


def modality_gap(image: Tensor, text: Tensor) -> float:
    """Distance between the mean of the image vectors (N,E) and the mean of the text vectors (M,E).

    Source: Liang et al. 2022, "Mind the gap", Sec. 4.1, arXiv 2203.02053.
    """
    return (image.double().mean(0) - text.double().mean(0)).norm().item()


def pair_alignment(image: Tensor, text: Tensor) -> float:
    """Mean squared distance of true pairs, row by row (M,E); 0 where they coincide, on the unit sphere at most 4.

    Source: Wang and Isola 2020, Sec. 4.1 with α = 2, arXiv 2005.10242.
    """
    return F.pairwise_distance(image, text, eps=0).double().square().mean().item()


def uniformity(unit: Tensor) -> float:
    """Logarithm of the mean of exp(−2 · squared distance) over all pairs of two different rows of `unit` (B,E).

    0 where all coincide; the lower, the more evenly the vectors cover the sphere.

    Source: Wang and Isola 2020, Sec. 4.1 with t = 2, arXiv 2005.10242.
    """
    total = torch.zeros((), dtype=torch.double, device=unit.device)
    for start, row in _blocks(unit):
        for begin, column in _blocks(unit[start:]):
            near = (4 * (row @ column.T).clamp_max(1) - 4).exp()  # the squared distance is 2 − 2 · cosine
            total += (near if begin else near.triu(1)).sum(dtype=torch.double)
    return (total / (len(unit) * (len(unit) - 1) / 2)).log().item()


def effective_rank(vectors: Tensor) -> float:
    """Exponential of the entropy of the singular values of (B,E), as shares of their sum: from 1 to min(B, E).

    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality", Definition 1.
    Differs: singular values from the Gram matrix of the shorter side, those below its rounding are 0.
    """
    parts = vectors.split(BLOCK) if len(vectors) > vectors.shape[1] else vectors.T.split(BLOCK)
    gram = vectors.new_zeros(parts[0].shape[1], parts[0].shape[1], dtype=torch.double)
    for part in parts:
        gram.addmm_(part.double().T, part.double())
    power = torch.linalg.eigvalsh(gram)
    power = power.masked_fill(power < power[-1] * len(power) * torch.finfo(power.dtype).eps, 0)
    share = power.sqrt() / power.sqrt().sum()
    return (-torch.xlogy(share, share)).sum().exp().item()


def hubness(top: Tensor, num_items: int) -> float:
    """Skewness of how often each of the items is among the ten best (Q,10) of a query; 0 where all are as often.

    Source: Radovanović et al. 2010, "Hubs in space", JMLR 11, Sec. 2 (N_k, with k = 10 and queries of the other side).
    """
    count = top[top >= 0].bincount(minlength=num_items).double()
    centred = count - count.mean()
    deviation = centred.square().mean().sqrt()
    return (centred.pow(3).mean() / deviation.pow(3)).item() if deviation > 0 else 0.0


def mutual_knn(image: Tensor, text: Tensor) -> float:
    """Mean share of the k nearest other images that are also the k nearest by the texts; row b belongs to row b (B,E).

    The text of an image is the mean of its texts' unit vectors, so that every caption counts. Of at most k + 1 images
    all others are neighbours, and the share is 1.

    Source: Huh et al. 2024, "The Platonic representation hypothesis", Appendix A, arXiv 2405.07987.
    Differs: both sides are embedded in one space; several texts per image.
    """
    k, shared = min(NEIGHBOURS, len(image) - 1), 0
    for start, _ in _blocks(image):
        near = [_neighbours(side, start, k) for side in (image, text)]
        shared += int((near[0][:, :, None] == near[1][:, None]).sum())
    return shared / (k * len(image))


def recall_by_length(rank: Tensor, num_words: Tensor) -> dict[str, float]:
    """Recall@1 in percent of the short, medium and long third of the texts, and the lengths that part them.

    Texts of one length are in one part, so that parts differ in size; one that is empty is left out.

    Raises:
        ValueError: if `num_words` has not one number per rank.
    """
    if num_words.shape != rank.shape:
        raise ValueError(f"num_words must have one number per text, got {tuple(num_words.shape)} for {len(rank)} texts")
    num_words = num_words.to(rank.device)
    lengths = num_words.sort().values
    low, high = (int(lengths[-(-part * len(lengths) // 3) - 1]) for part in (1, 2))
    found: dict[str, float] = {"short_max_words": low, "medium_max_words": high}
    parts = {"short": num_words <= low, "medium": (num_words > low) & (num_words <= high), "long": num_words > high}
    for name, part in parts.items():
        if part.any():
            found[f"t2i_r1_{name}"] = 100 * (rank[part] == 1).double().mean().item()
    return found


def _blocks(vectors: Tensor) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(vectors), BLOCK):
        yield start, vectors[start : start + BLOCK]


def _neighbours(unit: Tensor, start: int, k: int) -> Tensor:
    """The k nearest rows of a block of rows, without themselves; of equals the first."""
    cosines = unit[start : start + BLOCK] @ unit.T
    itself = torch.arange(len(cosines), device=unit.device)
    cosines[itself, start + itself] = -torch.inf
    return best(cosines, k)[1]
