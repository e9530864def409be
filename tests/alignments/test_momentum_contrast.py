"""Momentum contrast: candidates from a teacher and a queue, soft targets."""

import math

import pytest
import torch
import torch.nn.functional as F
from contract.alignment_inputs import IMAGE, TEXT, Input, batch_of, pairs_of, usual_batch
from torch import Tensor

from mmlit.alignments.momentum_contrast import MomentumContrast, _Queue
from mmlit.contracts import Encoded, Pairs
from mmlit.layers.heads import HeadKind
from mmlit.losses.info_nce import info_nce


def momentum_contrast(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    dropout: float = 0.0,
    temperature: float = 0.2,
    learn_temperature: bool = True,
    momentum: float = 0.9,
    queue_size: int = 9,
    distillation: float = 0.4,
) -> MomentumContrast:
    torch.manual_seed(0)
    return MomentumContrast(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        dropout=dropout,
        temperature=temperature,
        learn_temperature=learn_temperature,
        momentum=momentum,
        queue_size=queue_size,
        distillation=distillation,
    )


def taught(alignment: MomentumContrast, given: Input, seed: int, **share: slice) -> Pairs:
    """With a teacher that is not the student."""
    generator = torch.Generator().manual_seed(seed)
    pairs = pairs_of(alignment, given, **share)
    image, text = (
        F.normalize(torch.randn(len(side.pooled), 5, generator=generator), dim=1)
        for side in (pairs.all_image, pairs.all_text)
    )
    return pairs._replace(teacher=(Encoded(image[:, :0], image, image), Encoded(text[:, :0], text, text)))


def slow(
    rows: Tensor, teacher_rows: Tensor, keys: Tensor, row_ids: list[int], key_ids: list[int], alpha: float
) -> list[float]:
    """½ · H(target, p), target = (1 − α) · uniform over the same ids + α · the teacher's softmax, in plain loops."""

    def softmax(vector: Tensor) -> list[float]:
        powers = [
            math.exp(sum(a * b for a, b in zip(vector.tolist(), key, strict=True)) / 0.2) for key in keys.tolist()
        ]
        return [power / sum(powers) for power in powers]

    losses = []
    for vector, teacher, own in zip(rows, teacher_rows, row_ids, strict=True):
        soft, chance = softmax(teacher), softmax(vector)
        same = [float(own == other) for other in key_ids]
        target = [(1 - alpha) * y / sum(same) + alpha * q for y, q in zip(same, soft, strict=True)]
        losses.append(-0.5 * sum(t * math.log(p) for t, p in zip(target, chance, strict=True)))
    return losses


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("share", [{}, {"images_at": slice(1, 4), "texts_at": slice(2, 6)}], ids=["alone", "share"])
def test_losses_equal_the_loops(alpha: float, share: dict[str, slice]) -> None:
    """Traps 8 and 13: an image twice, ids of the batch in the queue, a device's rows against everybody's."""
    alignment, given = momentum_contrast(distillation=alpha), batch_of([3, 1, 4, 1, 9], [1, 4, 3, 1, 9, 4, 3])
    before = batch_of([1, 8, 4], [8, 1, 4, 8])
    alignment.after_step(old := taught(alignment, before, seed=1))
    pairs = taught(alignment, given, seed=2, **share)
    terms = alignment.losses(pairs)
    assert list(terms) == ["i2t", "t2i"]
    (old_image, old_text), (image, text) = old.teacher, pairs.teacher  # type: ignore[misc]
    image_ids, text_ids = given.image_id.tolist(), given.text_image_id.tolist()
    keys = torch.cat([text.pooled, old_text.pooled])
    own = pairs.image.pooled, image.pooled[pairs.image_rows], keys, image_ids[pairs.image_rows]
    expected = slow(*own, text_ids + before.text_image_id.tolist(), alpha)
    torch.testing.assert_close(terms["i2t"], torch.tensor(expected), rtol=1e-5, atol=1e-6)
    keys = torch.cat([image.pooled, old_image.pooled])
    own = pairs.text.pooled, text.pooled[pairs.text_rows], keys, text_ids[pairs.text_rows]
    expected = slow(*own, image_ids + before.image_id.tolist(), alpha)
    torch.testing.assert_close(terms["t2i"], torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_without_distillation_and_queue_it_is_info_nce_against_the_teacher() -> None:
    """With mixed pictures, too: the shares of `Pairs.positives`."""
    alignment, given = momentum_contrast(distillation=0.0, queue_size=0), usual_batch()
    alignment.after_step(taught(alignment, given, seed=1))
    mix = given.image_id.roll(1), torch.full((5,), 0.7)
    pairs = taught(alignment, given, seed=2)._replace(all_mix_image_id=mix[0], all_mix_weight=mix[1])
    terms, positives = alignment.losses(pairs), pairs.positives(slice(None), slice(None))
    image, text = pairs.teacher  # type: ignore[misc]
    torch.testing.assert_close(terms["i2t"], 0.5 * info_nce(pairs.image.pooled @ text.pooled.T / 0.2, positives))
    torch.testing.assert_close(terms["t2i"], 0.5 * info_nce(pairs.text.pooled @ image.pooled.T / 0.2, positives.T))


def test_a_mixed_picture_is_queued_as_what_it_shows_most_of() -> None:
    """And what is in the queue is no mixture any more."""
    alignment, given = momentum_contrast(), usual_batch()
    mix = {"all_mix_image_id": given.image_id + 100, "all_mix_weight": torch.tensor([0.9, 0.2, 0.5, 0.4, 1.0])}
    alignment.after_step(taught(alignment, given, seed=1)._replace(**mix))
    assert alignment.image_queue.ids[:5].tolist() == [3, 101, 4, 105, 9]
    terms = alignment.losses(taught(alignment, given, seed=2)._replace(**mix))
    assert all(term.isfinite().all() for term in terms.values())


def test_gradients_reach_the_student_alone() -> None:
    alignment = momentum_contrast()
    alignment.after_step(taught(alignment, usual_batch(), seed=1))
    pairs = taught(alignment, usual_batch(), seed=2)
    image, text = pairs.teacher  # type: ignore[misc]
    for side in (image.pooled, text.pooled):
        side.requires_grad_()
    terms = alignment.losses(pairs._replace(teacher=(image, text)))
    terms["i2t"].sum().backward()
    assert alignment.space.image.weight.grad is not None
    assert alignment.space.text.weight.grad is None, "texts are the teacher's here"


def test_the_queue_keeps_the_last_ones() -> None:
    """It begins empty; pushes of 2, 2, 3 and 6 into 4 places, with the ids of their vectors all the way."""
    queue, pushed = _Queue(4, 1), []
    nothing = torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)
    assert len(queue.behind(*nothing)[0]) == 0
    for count in (2, 2, 3, 6):
        ids = torch.arange(len(pushed), len(pushed) + count) + 10
        pushed += ids.tolist()
        queue.push(ids[:, None].float(), ids)
        keys, found = queue.behind(*nothing)
        assert sorted(found.tolist()) == pushed[-4:]
        assert keys[:, 0].tolist() == found.tolist()
    keys, found = queue.behind(torch.ones(1, 1), torch.tensor([7]))
    assert (keys[0].item(), found[0].item(), len(found)) == (1.0, 7, 5)


def test_queues_are_weights_of_a_checkpoint() -> None:
    """So a resumed run, or a served model, has them as they were."""
    alignment, other = momentum_contrast(), momentum_contrast()
    for seed in (1, 2, 3):
        alignment.after_step(taught(alignment, usual_batch(), seed=seed))
    other.load_state_dict(alignment.state_dict())
    pairs = taught(alignment, usual_batch(), seed=4)
    expected, found = alignment.losses(pairs), other.losses(pairs)
    assert all(torch.equal(found[name], term) for name, term in expected.items())
    assert int(other.image_queue.filled) == 9
    assert int(other.text_queue.place) == 3 * 7 % 9


def test_after_a_step_the_learned_temperature_is_in_bounds() -> None:
    """Trap 16."""
    alignment = momentum_contrast()
    alignment.temperature.log_scale.data.fill_(7.0)
    alignment.after_step(taught(alignment, usual_batch(), seed=1))
    assert alignment.temperature.log_scale.item() == pytest.approx(math.log(100))


def test_without_a_teacher_it_is_refused() -> None:
    alignment = momentum_contrast()
    pairs = pairs_of(alignment, usual_batch())._replace(teacher=None)
    for method in (alignment.losses, alignment.after_step):
        with pytest.raises(
            ValueError, match=r"momentum_contrast learns from momentum towers, and pairs\.teacher is None"
        ):
            method(pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, r"momentum must lie in \[0, 1\), got -0.1"),
        ({"queue_size": -1}, "queue_size must be >= 0, got -1"),
        ({"distillation": 1.1}, r"distillation must lie in \[0, 1\], got 1.1"),
        ({"temperature": 0.001}, r"a learned temperature must start in \[0.01, 1\], got 0.001"),
        ({"dim": None}, r"alignment\.dim may be null only where one head is identity"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        momentum_contrast(**options)  # type: ignore[arg-type]
