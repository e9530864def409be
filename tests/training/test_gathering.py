"""Two and four real processes against one: the gradient of the global batch, for every alignment."""

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from contract.alignment_inputs import teacher_of
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

from mmlit.contracts import Auxiliary, Batch, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.similarity import pooled_only
from mmlit.training.gathering import gather, gather_encoded, gather_ids, global_mean, same_image

CONF = Path(__file__).resolve().parents[2] / "conf"
IMAGE = ImageSpec(dim=24, size=8, resize="squash", interpolation="bilinear")
TEXT = TextSpec(dim=16, vocabulary_size=50, mask_id=2, special_ids=(0, 1, 2), max_length=9)
#: rows of two and of four devices; uneven on purpose
SHARES = {2: (slice(0, 3), slice(3, 8)), 4: (slice(0, 1), slice(1, 4), slice(4, 6), slice(6, 8))}
ALIGNMENTS = sorted(path.stem for path in (CONF / "alignment").glob("*.yaml"))
AUXILIARIES = sorted(path.stem for path in (CONF / "auxiliary").glob("*.yaml"))
#: what gradients are taken to besides parameters
INPUTS = {"image", "text", "view", "other view"}
METHODS = [*ALIGNMENTS, *(f"auxiliary={name}" for name in AUXILIARIES)]


def alignment_named(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    alignment = instantiate(OmegaConf.load(CONF / "alignment" / f"{name}.yaml"), image=IMAGE, text=TEXT)
    for module in alignment.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    return alignment


def auxiliary_named(name: str) -> Auxiliary:
    torch.manual_seed(0)
    width = OmegaConf.load(CONF / "alignment" / "contrastive.yaml").dim
    auxiliary = instantiate(OmegaConf.load(CONF / "auxiliary" / f"{name}.yaml"), image=IMAGE, width=width)
    auxiliary.begin(["a", "b", "c"])
    return auxiliary


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
    """Gradients of the loss of this process's rows, for parameters and for the encoders' outputs.

    An auxiliary's loss is taken alone, on what `contrastive` embeds and on two views with labels.
    """
    auxiliary = auxiliary_named(name.partition("=")[2]) if "=" in name else None
    alignment = alignment_named("contrastive" if auxiliary else name)
    image, text, batch = data()
    width = int(text.mask[rows].sum(1).max())  # each device trims to its own longest caption
    own_image = Encoded(*(part[rows] for part in image))
    own_text = Encoded(text.tokens[rows, :width], text.pooled[rows], text.mask[rows, :width])
    views = [pooled_only(view[rows].clone()) for view in (image.pooled.flip(1), image.pooled.roll(1, dims=1))]
    for part in (own_image.pooled, own_text.pooled, *(view.pooled for view in views)):
        part.requires_grad_()
    own = batch._replace(
        image_id=batch.image_id[rows], text_id=batch.text_id[rows], text_image_id=batch.text_image_id[rows],
        labels=torch.arange(24).view(8, 3)[rows] % 5 < 2,
    )  # fmt: skip
    image_here, all_image, image_offset = gather_encoded(alignment.embed_image(own_image))
    text_here, all_text, text_offset = gather_encoded(alignment.embed_text(own_text))
    pairs = Pairs(
        image_here, text_here, all_image, all_text, image_offset, text_offset, batch=own,
        encode_image=lambda _: image_here, encode_text=lambda *_: text_here, draw_key=7,
        teacher=teacher_of(alignment, all_image, all_text), **gather_ids(own),
        all_views=tuple(gather_encoded(view)[1] for view in views),
    )  # fmt: skip
    means = global_mean((auxiliary or alignment).losses(pairs))
    torch.stack(list(means.values())).sum().backward()
    found = {name: parameter.grad for name, parameter in (auxiliary or alignment).named_parameters()}
    inputs = {
        "image": own_image.pooled,
        "text": own_text.pooled,
        "view": views[0].pooled,
        "other view": views[1].pooled,
    }
    return found | {key: part.grad for key, part in inputs.items() if part.grad is not None}


def worker(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world)
    found = {name: gradients(name, SHARES[world][rank]) for name in METHODS}
    for parts in found.values():
        for key, value in parts.items():
            if key not in INPUTS:  # DDP sums the gradients of parameters over devices, and averages
                dist.all_reduce(value)
            value.div_(world)
    torch.save(found, f"{folder}/{world}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[int, list[dict[str, dict[str, torch.Tensor]]]]:
    """What one process, and each of two and of four, has for every alignment."""
    folder = tmp_path_factory.mktemp("devices")
    alone = {name: gradients(name, slice(0, 8)) for name in METHODS}  # first: what it imports, the others have
    for world in SHARES:
        mp.start_processes(worker, (world, str(folder)), nprocs=world, start_method="fork")
    parts = {world: [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)] for world in SHARES}
    return {1: [alone], **parts}


@pytest.mark.parametrize("world", SHARES)
@pytest.mark.parametrize("name", METHODS)
def test_several_devices_have_the_gradient_of_one(found, name, world):
    """Traps 13 and 14: gathered with gradient, scaled once; uneven shares, an image that comes twice."""
    parts = [part[name] for part in found[world]]
    for key, expected in found[1][0][name].items():
        got = torch.cat([part[key] for part in parts]) if key in INPUTS else parts[0][key]
        assert (got - expected).norm() <= 1e-5 * expected.norm(), key
        assert expected.abs().max() > 0, key


class Shapes(TorchDispatchMode):
    """Keeps the largest number of places in which any tensor has pairs of a whole batch."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch, self.seen = batch, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.numel() % self.batch**2 == 0:
                self.seen = max(self.seen, tensor.numel())
        return result


def places_of_pairs(name: str, own: slice) -> int:
    """The most places that a tensor with all pairs of things has, forward and backward; 0 if there is none."""
    alignment, batch = alignment_named(name), 61  # a prime: sizes that it divides twice are those of all pairs
    ids = torch.arange(batch)
    generator = torch.Generator().manual_seed(0)
    image, text = (
        Encoded(torch.randn(batch, count, dim, generator=generator), torch.randn(batch, dim, generator=generator),
                torch.ones(batch, count).bool())
        for count, dim in ((4, IMAGE.dim), (5, TEXT.dim))
    )  # fmt: skip
    with Shapes(batch) as shapes:
        image, text = alignment.embed_image(image), alignment.embed_text(text)
        own_image, own_text = image.take(own), text.take(own)
        given = Batch(image, ids[own], ids[own, None], ids[own, None] > 0, text, ids[own], ids[own])
        pairs = Pairs(
            own_image, own_text, image, text, own.start, own.start, ids, ids, ids, batch=given,
            encode_image=lambda _: own_image, encode_text=lambda *_: own_text, draw_key=3,
            teacher=teacher_of(alignment, image, text),
        )  # fmt: skip
        torch.cat(list(alignment.losses(pairs).values())).sum().backward()
    return shapes.seen


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_a_device_forms_its_rows_of_the_batch_only(name):
    """b × B pairs of things, never B × B: neither forward nor backward."""
    assert places_of_pairs(name, slice(7, 15)) == 0


def test_all_pairs_would_be_seen():
    assert places_of_pairs("triplet", slice(0, 61)) >= 61**2


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


def test_texts_that_share_an_image_are_counted():
    """Trap 8: 3 of one image, 2 of another, 1 alone."""
    assert same_image(torch.tensor([7, 3, 7, 9, 3, 7])) == 5
    assert same_image(torch.tensor([4])) == 0
