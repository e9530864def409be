"""What each process of the sharded evaluation test runs; a module of its own, so that a new process can import it."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.retrieval import Retrieval, RetrievalResult

MAX_TEXT_TOKENS = 7
COUNTS = [1, 7, 2, 5, 3, 1, 4, 6, 2, 2, 5, 1, 3, 7, 1, 2, 4, 3, 6, 5, 2]


class Share(NamedTuple):
    """One call of `update`."""

    image: Encoded
    text: Encoded
    image_id: Tensor
    text_id: Tensor
    text_image_id: Tensor


def pooled_cosine(image: Encoded, text: Encoded) -> Tensor:
    return image.pooled @ text.pooled.T


def token_score(image: Encoded, text: Encoded) -> Tensor:
    """Reads what the mask keeps and its place, so that wrong padding moves it."""
    place = 1 + torch.arange(text.tokens.shape[1]) / 10
    words = (text.tokens * (text.mask * place)[..., None]).sum(1) / text.mask.sum(1, keepdim=True)
    return image.tokens.mean(1) @ words.T + 0.1 * pooled_cosine(image, text)


def shares(images: list[int], *, tokens: bool) -> list[Share]:
    """Batches of up to three of these images with all their captions; embeddings are functions of the ids."""
    batches = []
    for start in range(0, len(images), 3):
        own = images[start : start + 3]
        text_id = [100 * image + caption for image in own for caption in range(COUNTS[image])]
        lengths = torch.tensor([2 + i % 5 for i in text_id])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]  # the longest differs from batch to batch
        words = torch.stack([_random(5000 + i, MAX_TEXT_TOKENS, 6) for i in text_id])[:, : mask.shape[1]]
        image, text = (torch.stack([_random(i, 5, 6) for i in own]), torch.stack([_random(i, 6) for i in text_id]))
        none = slice(0, None if tokens else 0)
        batches.append(
            Share(
                Encoded(image[:, :4][:, none], image[:, 4], torch.ones(len(own), 4, dtype=torch.bool)[:, none]),
                Encoded(words[:, none], text, mask[:, none]),
                torch.tensor(own),
                torch.tensor(text_id),
                torch.tensor([i // 100 for i in text_id]),
            )
        )
    return batches


def evaluated(images: list[int], *, tokens: bool) -> RetrievalResult:
    """The metric's result after these images."""
    metric = Retrieval(
        score=token_score if tokens else pooled_cosine,
        coarse=pooled_cosine if tokens else None,
        max_text_tokens=MAX_TEXT_TOKENS,
        image_block=5,
        text_block=16,
        num_candidates=6,
        images=None,
        captions_per_image=None,
        folds=1,
        truths=(),
        rerank_ks=(),
    )
    for share in shares(images, tokens=tokens):
        metric.update(*share)
    return metric.compute()


def rank_own_share(rank: int, images_of_rank: list[list[int]], folder: str) -> None:
    """One process: collects its share, ranks with the others, writes what it found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=len(images_of_rank))
    try:
        found = []
        for tokens in (False, True):
            result = evaluated(images_of_rank[rank], tokens=tokens)
            found.append((result.metrics, tuple(result.ranking), *result.gallery[2:], result.scored))
        torch.save(found, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def _random(key: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(key))
