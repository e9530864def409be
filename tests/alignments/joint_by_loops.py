"""A small `Joint`, and its matching pair by pair in plain loops."""

import torch
import torch.nn.functional as F
from contract.alignment_inputs import IMAGE, TEXT
from torch import Tensor

from mmlit.alignments.joint import Joint
from mmlit.contracts import Encoded, Pairs, TextSpec
from mmlit.layers.heads import HeadKind


def joint(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    token_dim: int = 8,
    num_layers: int = 1,
    num_heads: int = 2,
    dropout: float = 0.0,
    temperature: float = 0.2,
    learn_temperature: bool = True,
    match_weight: float = 1.0,
    contrast_term: float = 1.0,
    match_term: float = 1.0,
    words_term: float = 0.0,
    distillation: float = 0.0,
    momentum: float | None = None,
    text: TextSpec = TEXT,
) -> Joint:
    torch.manual_seed(0)
    alignment = Joint(
        image=IMAGE,
        text=text,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        token_dim=token_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        dropout=dropout,
        temperature=temperature,
        learn_temperature=learn_temperature,
        match_weight=match_weight,
        contrast_term=contrast_term,
        match_term=match_term,
        words_term=words_term,
        distillation=distillation,
        momentum=momentum,
    )
    torch.nn.init.normal_(alignment.match.weight)  # logits that tell pairs apart before any training
    return alignment


def logit(alignment: Joint, image: Encoded, n: int, text: Encoded, m: int) -> Tensor:
    """One pair, its padding cut off, through the fusion's layers, the mean over words and the last linear map."""
    words, patches = text.tokens[m, text.mask[m]], image.tokens[n, image.mask[n]]
    fused = alignment.fusion.layers(words[None], patches[None])[0].mean(0)
    return F.linear(fused, alignment.match.weight, alignment.match.bias)[0]


def mined(pairs: Pairs, scores: Tensor, n_of_row: bool) -> list[int]:
    """For each row the wrong column of the highest score + Gumbel noise, by loops; −1 where all columns are true."""
    image_id, owner = pairs.all_image_id.tolist(), pairs.all_text_image_id.tolist()
    draws = pairs.draws(slice(None), slice(None))
    chosen = []
    for row in range(len(scores)):
        best, best_value = -1, -float("inf")
        for column in range(scores.shape[1]):
            n, m = (row, column) if n_of_row else (column, row)
            value = scores[row, column].item() - (-draws[n, m].log()).log().item()
            if image_id[n] != owner[m] and value > best_value:
                best, best_value = column, value
        chosen.append(best)
    return chosen


def match_by_loops(alignment: Joint, pairs: Pairs) -> list[Tensor]:
    """Binary cross-entropy, pair by pair: all true ones, then each text's hard image, then each image's hard text."""
    image, text = pairs.image, pairs.text
    scores = image.pooled @ text.pooled.T / 0.2
    positive = [
        (n, m)
        for m in range(len(text.pooled))
        for n in range(len(image.pooled))
        if pairs.all_image_id[n] == pairs.all_text_image_id[m]
    ]
    hard_image = [(n, m) for m, n in enumerate(mined(pairs, scores.T, n_of_row=False)) if n >= 0]
    hard_text = [(n, m) for n, m in enumerate(mined(pairs, scores, n_of_row=True)) if m >= 0]
    return [-F.logsigmoid(logit(alignment, image, n, text, m)) for n, m in positive] + [
        -F.logsigmoid(-logit(alignment, image, n, text, m)) for n, m in hard_image + hard_text
    ]
