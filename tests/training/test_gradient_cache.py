"""Chunks against the whole batch: the same gradients, the same dropout, one synchronization, less memory."""

import weakref
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from contract.alignment_inputs import teacher_of
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmlit.contracts import Alignment, Batch, Encoded, Pairs
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder
from mmlit.training.batch_norm import check_batch_norm
from mmlit.training.gathering import gather_encoded, gather_ids, global_mean
from mmlit.training.gradient_cache import GradientCache

CONF = Path(__file__).resolve().parents[2] / "conf"
ALIGNMENTS = sorted(path.stem for path in (CONF / "alignment").glob("*.yaml"))
B = 8


class Step(nn.Module):
    """Towers, alignment and one training step: `chunk_size` with the cache, `plain` in chunks of one plain graph."""

    def __init__(self, name: str, *, dropout: float, frozen: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image_encoder = TinyImageEncoder(size=16, dim=32, num_layers=1, freeze=frozen)
        self.text_encoder = TinyTextEncoder(vocabulary_size=40, max_length=9, dim=32, num_layers=1, freeze=False)
        options = OmegaConf.load(CONF / "alignment" / f"{name}.yaml")
        self.alignment: Alignment = instantiate(
            options, image=self.image_encoder.spec, text=self.text_encoder.spec, dropout=dropout
        )
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = dropout

    def forward(self, batch: Batch, chunk_size: int | None, plain: int | None = None) -> Tensor:
        if chunk_size is not None:
            encoded = GradientCache(chunk_size=chunk_size).encode(
                self.image_encoder, self.text_encoder, self.alignment, batch
            )
        else:
            encoded = self._whole(batch, plain or B)
        own_image, all_image, image_offset = gather_encoded(encoded[0])
        own_text, all_text, text_offset = gather_encoded(encoded[1])
        refused = GradientCache.refuse(self.alignment)
        pairs = Pairs(
            own_image, own_text, all_image, all_text, image_offset, text_offset, batch=batch, encode_image=refused,
            encode_text=refused, draw_key=5, teacher=teacher_of(self.alignment, all_image, all_text),
            **gather_ids(batch),
        )  # fmt: skip
        return torch.stack(list(global_mean(self.alignment.losses(pairs)).values())).sum()

    def _whole(self, batch: Batch, chunk: int) -> tuple[Encoded, Encoded]:
        images = batch.image.split(chunk) if isinstance(batch.image, Tensor) else [batch.image]
        image = [
            self.alignment.embed_image(part if isinstance(part, Encoded) else self.image_encoder(part))
            for part in images
        ]
        texts = zip(batch.token_ids.split(chunk), batch.token_mask.split(chunk), strict=True)
        text = [self.alignment.embed_text(self.text_encoder(*part)) for part in texts]
        return tuple(Encoded(*map(torch.cat, zip(*parts, strict=True))) for parts in (image, text))


def batch_of() -> Batch:
    """Eight pictures with one caption each; two of one image; captions of different length."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(6) < torch.tensor([3, 2, 3, 5, 6, 4, 2, 6])[:, None]
    image_id = torch.tensor([10, 11, 12, 13, 14, 12, 16, 17])
    ids = torch.randint(3, 40, (B, 6), generator=generator) * mask
    pixels = torch.randint(256, (B, 3, 16, 16), generator=generator).byte()
    return Batch(pixels, image_id, ids, mask, None, torch.arange(100, 100 + B), image_id)


def gradients(step: Step, *arguments, batch: Batch | None = None, scale: float = 1.0) -> dict[str, Tensor]:
    torch.manual_seed(9)
    step.zero_grad()
    (step(batch or batch_of(), *arguments) * scale).backward()
    return {name: part.grad / scale for name, part in step.named_parameters() if part.grad is not None}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], *, within: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= within * value.norm(), name


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_chunks_have_the_gradient_of_the_whole_batch(name):
    """Trap 15: for every parameter of towers and alignment; 3, 3 and 2 rows at a time."""
    step = Step(name, dropout=0.0)
    expected = gradients(step, None)
    assert {key.partition(".")[0] for key in expected} == {"image_encoder", "text_encoder", "alignment"}
    assert len(expected) == len(list(step.parameters()))
    assert_equal(gradients(step, 3), expected, within=1e-5)


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_the_second_pass_has_the_dropout_of_the_first(name):
    """Bit for bit: the gradients are those of chunks whose graphs are kept, and so is every draw after them."""
    step = Step(name, dropout=0.3)
    expected = gradients(step, None, 3)
    after = torch.rand(3)
    found = gradients(step, 3)
    assert torch.equal(torch.rand(3), after)
    assert_equal(found, expected, within=1e-6)
    assert any(not torch.equal(found[key], value) for key, value in gradients(step, 4).items()), "dropout must be on"


@pytest.mark.parametrize("name", ["contrastive", "cross_attention"])
@pytest.mark.parametrize("stored", [False, True])
def test_a_side_that_is_frozen_or_from_a_store(name, stored):
    """A frozen tower runs once for each chunk; what lies on top of it learns as from the whole batch."""
    step, batch = Step(name, dropout=0.0, frozen=True), batch_of()
    expected = gradients(step, None)
    assert not any(key.startswith("image_encoder") for key in expected)
    runs = []
    step.image_encoder.register_forward_hook(lambda *_: runs.append(1))
    if stored:
        with torch.no_grad():
            batch = batch._replace(image=step.image_encoder(batch.image))
        runs.clear()
    assert_equal(gradients(step, 3, batch=batch), expected, within=1e-5)
    assert len(runs) == (0 if stored else 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_a_scaled_loss(dtype):
    """bf16-mixed and 16-mixed: each chunk is made again under the autocast of the first time, and scaling is linear."""
    step = Step("joint", dropout=0.2)
    scale = 1.0 if dtype == torch.bfloat16 else 2.0**12
    with torch.autocast("cpu", dtype, cache_enabled=False):
        loss = step(batch_of(), 3)
        torch.manual_seed(9)
        expected = step(batch_of(), None, 3)
    step.zero_grad()
    (expected * scale).backward()
    kept = {key: part.grad / scale for key, part in step.named_parameters()}
    step.zero_grad()
    with torch.autocast("cpu", dtype, cache_enabled=False):
        torch.manual_seed(9)
        loss = step(batch_of(), 3)
    (loss * scale).backward()  # outside, as Lightning does it
    assert loss == expected
    assert_equal({key: part.grad / scale for key, part in step.named_parameters()}, kept, within=1e-6)


def test_memory_is_that_of_one_chunk():
    """What a tower makes of one chunk is gone before another chunk is made, on the way forward and backward."""
    step, alive, most = Step("contrastive", dropout=0.0), weakref.WeakSet(), []

    def watch(module, inputs, output):
        alive.add(output)
        most.append(len(alive))

    step.image_encoder.stem[2].register_forward_hook(watch)
    gradients(step, None, 2)
    assert max(most) == 4
    most.clear()
    gradients(step, 2)
    assert len(most) == 8
    assert max(most) == 1


def test_one_synchronization_of_gradients(tmp_path):
    """Under DDP each bucket is reduced once, after all chunks."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        step = Step("joint", dropout=0.1)
        expected = gradients(step, 3)
        buckets = []

        def count(_, bucket):
            buckets.append(bucket.index())
            future: torch.futures.Future[Tensor] = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        parallel = DistributedDataParallel(step)
        parallel.register_comm_hook(None, count)
        for _ in range(2):  # buckets are arranged anew after the first step
            buckets.clear()
            torch.manual_seed(9)
            step.zero_grad()
            parallel(batch_of(), 3).backward()
        assert buckets
        assert len(buckets) == len(set(buckets))
        assert_equal({key: part.grad for key, part in step.named_parameters()}, expected, within=1e-6)
    finally:
        dist.destroy_process_group()


def test_a_term_that_encodes_another_view_is_refused_by_name(monkeypatch):
    step = Step("contrastive", dropout=0.0)
    monkeypatch.setattr(
        type(step.alignment), "losses", lambda self, pairs: {"view": pairs.encode_image(pairs.batch.image).pooled[:, 0]}
    )
    with pytest.raises(ValueError, match=r"step=gradient_cache: a term of Contrastive encodes another view"):
        step(batch_of(), 3)


@pytest.mark.parametrize("size", [0, -4])
def test_chunk_size_is_checked(size):
    with pytest.raises(ValueError, match=f"step.chunk_size must be >= 1, got {size}"):
        GradientCache(chunk_size=size)


class Tower(nn.Module):
    """As much of a module as is asked for its batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    ("chunked", "devices", "synchronized", "told"),
    [
        (True, 1, False, r"step=gradient_cache: image_encoder\.1 is one of 2 batch norms that are trained"),
        (False, 2, False, r"trainer\.devices: image_encoder\.1 .*image_encoder\.freeze=true"),
        (False, 1, False, None),
        (False, 2, True, None),
    ],
)
def test_batch_norms_that_see_a_part_of_the_batch_are_refused(chunked, devices, synchronized, told):
    """Trap 22 beside it: frozen ones, which are in evaluation mode, never are."""
    tower, options = Tower(), {"chunked": chunked, "devices": devices, "synchronized": synchronized}
    check_batch_norm(tower.eval(), **options)
    if told is None:
        check_batch_norm(tower.train(), **options)
    else:
        with pytest.raises(ValueError, match=told):
            check_batch_norm(tower.train(), **options)
