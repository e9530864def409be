"""Two real processes against one: the gradient of the global batch, for every alignment."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from mmlit.contracts import Batch, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.training.gathering import gather, gather_encoded, gather_ids, global_mean

CONF = Path(__file__).resolve().parents[2] / "conf"
IMAGE = ImageSpec(dim=24, size=8, resize="squash", interpolation="bilinear")
TEXT = TextSpec(dim=16, vocabulary_size=50, mask_id=2, special_ids=(0, 1, 2), max_length=9)
#: rows of the two devices; uneven on purpose
SHARES = (slice(0, 3), slice(3, 8))


def alignment_named(name: str) -> torch.nn.Module:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"alignment={name}"])
    torch.manual_seed(0)
    alignment = instantiate(config.alignment, _convert_="all", image=IMAGE, text=TEXT)
    for module in alignment.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    return alignment


def data() -> tuple[Encoded, Encoded, Batch]:
    """Eight images with one caption each; images 2 and 5 are one image; captions of different length."""
    generator = torch.Generator().manual_seed(1)
    image = Encoded(
        torch.randn(8, 4, 24, generator=generator), torch.randn(8, 24, generator=generator), torch.ones(8, 4).bool()
    )
    lengths = torch.tensor([3, 2, 3, 5, 6, 4, 2, 6])
    mask = torch.arange(6) < lengths[:, None]
    text = Encoded(torch.randn(8, 6, 16, generator=generator), torch.randn(8, 16, generator=generator), mask)
    image_id = torch.tensor([10, 11, 12, 13, 14, 12, 16, 17])
    batch = Batch(image, image_id, torch.zeros(8, 6).long(), mask, text, torch.arange(100, 108), image_id)
    return image, text, batch


def gradients(name: str, rows: slice) -> dict[str, torch.Tensor]:
    """Gradients of the loss of this process's rows, for parameters and for the encoders' outputs."""
    alignment = alignment_named(name)
    image, text, batch = data()
    width = int(text.mask[rows].sum(1).max())  # each device trims to its own longest caption
    own_image = Encoded(*(part[rows] for part in image))
    own_text = Encoded(text.tokens[rows, :width], text.pooled[rows], text.mask[rows, :width])
    for part in (own_image.pooled, own_text.pooled):
        part.requires_grad_()
    own = batch._replace(
        image_id=batch.image_id[rows], text_id=batch.text_id[rows], text_image_id=batch.text_image_id[rows]
    )
    image_here, all_image, image_offset = gather_encoded(alignment.embed_image(own_image))
    text_here, all_text, text_offset = gather_encoded(alignment.embed_text(own_text))
    pairs = Pairs(
        image_here, text_here, all_image, all_text, image_offset, text_offset, batch=own,
        encode_image=lambda _: image_here, encode_text=lambda *_: text_here, draw_key=7, **gather_ids(own),
    )  # fmt: skip
    means = global_mean(alignment.losses(pairs))
    torch.stack(list(means.values())).sum().backward()
    found = {name: parameter.grad for name, parameter in alignment.named_parameters()}
    return found | {"image": own_image.pooled.grad, "text": own_text.pooled.grad}


def worker(rank: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = gradients(name, SHARES[rank])
    for key, value in found.items():
        if key not in {"image", "text"}:  # DDP sums the gradients of parameters over devices, and halves them
            dist.all_reduce(value)
        value.div_(2)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "alignment").glob("*.yaml")))
def test_two_devices_have_the_gradient_of_one(name, tmp_path):
    """Traps 13 and 14: gathered with gradient, scaled once; uneven shares, an image that comes twice."""
    mp.start_processes(worker, (name, str(tmp_path)), nprocs=2, start_method="fork")
    one = gradients(name, slice(0, 8))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for key, expected in one.items():
        found = torch.cat([part[key] for part in parts]) if key in {"image", "text"} else parts[0][key]
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6), key
        assert expected.abs().max() > 0, key


def test_one_device_gathers_the_same_objects():
    tensor = torch.randn(3, 2)
    assert gather(tensor)[0] is tensor
    encoded = Encoded(torch.randn(3, 2, 4), torch.randn(3, 4), torch.ones(3, 2).bool())
    own, everyone, offset = gather_encoded(encoded)
    assert own is encoded
    assert everyone is encoded
    assert offset == 0


def test_mean_of_terms_with_different_numbers_of_rows():
    means = global_mean({"one": torch.tensor([1.0, 3.0]), "two": torch.tensor([5.0])})
    assert means["one"] == 2
    assert means["two"] == 5
