"""What each process runs in the test of one, two and three devices; a module of its own, to be imported."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.retrieval import Retrieval, RetrievalResult

NUM_IMAGES = 47
KINDS = ("planted", "real")


class Items(NamedTuple):
    """Embedded images with their captions, one to seven of each."""

    image: Tensor
    text: Tensor
    owner: Tensor


def items(kind: str, world_size: int) -> Items:
    """`planted`: integers, whose products are exact; `real`: unit vectors with the rounding of that many devices.

    Every fifth `real` image is nearly the one before it, so that some gaps between scores are as small as rounding.
    """
    generator = torch.Generator().manual_seed(7)
    owner = torch.arange(NUM_IMAGES).repeat_interleave(1 + torch.arange(NUM_IMAGES) * 5 % 7)
    if kind == "planted":
        image = torch.randint(-50, 50, (NUM_IMAGES, 12), generator=generator).float()
        noise = torch.randint(-60, 60, (len(owner), 12), generator=generator).float()
        return Items(image, image[owner] + noise, owner)
    image = torch.randn(NUM_IMAGES, 24, generator=generator)
    image[5::5] = image[4:-1:5][: len(image[5::5])]
    text = image[owner] + 1.6 * torch.randn(len(owner), 24, generator=generator)
    rounding = torch.Generator().manual_seed(world_size)
    unit = [torch.nn.functional.normalize(side, dim=1) for side in (image, text)]
    return Items(*(side + 1e-8 * torch.randn(side.shape, generator=rounding) for side in unit), owner)


def shares(world_size: int, rank: int) -> list[int]:
    """As a padding sampler deals the images out: some ranks get images again that others have."""
    padded = list(range(NUM_IMAGES)) + list(range(-NUM_IMAGES % world_size))
    return padded[rank::world_size]


def ranked(kind: str, world_size: int, images: list[int]) -> RetrievalResult:
    """The metric's result after these images, in batches of four, among as many processes as there are."""
    given = items(kind, world_size)
    metric = Retrieval(
        score=_score, coarse=None, max_text_tokens=1, image_block=7, text_block=31, num_candidates=1,
        images=None, captions_per_image=None, folds=1, truths=(), rerank_ks=(),
    )  # fmt: skip
    for own in torch.tensor(images).split(4):
        text = torch.isin(given.owner, own).nonzero().flatten()
        metric.update(_encoded(given.image[own]), _encoded(given.text[text]), own, 1000 + text, given.owner[text])
    return metric.compute()


def rank_with_two_and_three(rank: int, folder: str) -> None:
    """One process of three: ranks its share with two others, then (the first two) with one other."""
    torch.set_num_threads(1)
    for world_size in (3, 2):
        if rank < world_size:
            meeting = f"file://{folder}/meeting_of_{world_size}"
            dist.init_process_group("gloo", meeting, rank=rank, world_size=world_size)
            try:
                found = {kind: ranked(kind, world_size, shares(world_size, rank)) for kind in KINDS}
                plain = {kind: (result.metrics, tuple(result.ranking)) for kind, result in found.items()}
                torch.save(plain, Path(folder) / f"{world_size}_{rank}.pt")
            finally:
                dist.destroy_process_group()


def _score(image: Encoded, text: Encoded) -> Tensor:
    return image.pooled @ text.pooled.T


def _encoded(pooled: Tensor) -> Encoded:
    return Encoded(pooled.new_zeros(len(pooled), 0, 1), pooled, pooled.new_zeros(len(pooled), 0).bool())
