"""What a run says of its batches before it begins."""

from types import SimpleNamespace

from torch import nn

from mmlit.data.batching import AllCaptions, Batching, OneCaption
from mmlit.training.announcement import announcement, cautions
from mmlit.training.gradient_cache import GradientCache


def said(
    *,
    devices: int = 1,
    accumulate: int = 1,
    chunk_size: int | None = None,
    drop_last: bool = True,
    batching: Batching = OneCaption(group_by_length=False),  # noqa: B008
) -> list[str]:
    """Its line about training, then what it warns of; 100 images, 16 of them on each device."""
    trainer = SimpleNamespace(
        world_size=devices, accumulate_grad_batches=accumulate, max_epochs=2, max_steps=-1, limit_train_batches=1.0,
        limit_val_batches=1.0, limit_test_batches=1.0, precision="32-true", callbacks=[],
        strategy=SimpleNamespace(root_device=SimpleNamespace(type="cpu")),
    )  # fmt: skip
    reader = SimpleNamespace(captions=SimpleNamespace(num_images=100, num_texts=500))
    data = SimpleNamespace(
        batch_size=16, drop_last=drop_last, names={"train": "train"}, aside={}, readers={"train": reader},
        batching=batching,
    )  # fmt: skip
    step = None if chunk_size is None else GradientCache(chunk_size=chunk_size)
    parts = {name: nn.Linear(1, 1) for name in ("image_encoder", "text_encoder", "alignment")}
    module = SimpleNamespace(**parts, auxiliaries={}, step=step, groups=None, origin={"choices": {}})
    lines = announcement(trainer, module, data, directory="x")
    return [*(line for line in lines if line.startswith("training: ")), *cautions(trainer, data)]


def test_the_negatives_that_a_pair_sees():
    assert said() == [
        "training: 2 epochs of 6 batches, 16 pairs in a batch, one caption of each image: 15 negatives for each"
    ]
    assert said(devices=2, chunk_size=5)[0].endswith(
        "32 pairs in a batch of 2 devices, 5 in the towers at a time, one caption of each image: 31 negatives for each"
    )


def test_the_last_batch_of_an_epoch_has_fewer():
    """Trap 25: 100 images are 6 batches of 16 and one of 4."""
    assert said(drop_last=False)[0].endswith("15 negatives for each, 3 in the last batch of an epoch")


def test_accumulation_is_told_from_a_larger_batch():
    """Trap 15: it names the exact way, with the numbers of this run."""
    line, caution = said(devices=2, accumulate=4)
    assert "4 batches to a step" in line
    assert line.endswith("31 negatives for each")
    assert "accumulate_grad_batches=4 adds up the gradients of 4 batches, and is no larger batch" in caution
    assert caution.endswith("127 negatives for each is data.batch_size=64 step=gradient_cache step.chunk_size=16")
    assert said(accumulate=4, chunk_size=8)[1:], "accumulated caches are no larger batch either"


def test_all_captions_are_more_negatives_for_an_image_than_images_for_a_caption():
    """100 images with five captions each."""
    (line,) = said(batching=AllCaptions(group_by_length=False))
    assert ", 16 images in a batch, " in line
    assert line.endswith("15 negative images for each caption, about 75 negative captions for each image")
