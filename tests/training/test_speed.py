"""What a GPU does faster gives the same results; tried on the CPU, which has the same kernels' layouts and options."""

import multiprocessing
import platform
import resource
from functools import partial
from typing import Any

import pytest
import torch
from layers.published import publish
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data._utils.pin_memory import pin_memory

from mmlit.contracts import Batch, Encoded, ImageEncoder, ImageSpec, TextSpec
from mmlit.image_encoders.huggingface import HuggingFaceImageEncoder
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.layers.fusion import FusionEncoder
from mmlit.text_encoders.huggingface import HuggingFaceTextEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder
from mmlit.training.speed import channels_last, fused, keep_freed_memory

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
ADAMW = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.05)


def groups(module: nn.Module) -> list[dict[str, Any]]:
    return [{"params": list(module.parameters())}]


@pytest.mark.parametrize(
    ("optimizer", "device", "expected"),
    [
        (ADAMW, CUDA, True),
        (ADAMW, CPU, True),
        (ADAMW, torch.device("meta"), None),
        (partial(ADAMW, fused=False), CUDA, False),
        (partial(ADAMW, fused=True), CPU, True),
        (partial(ADAMW, foreach=True), CUDA, None),
    ],
)
def test_an_optimizer_is_fused_unless_told_otherwise(optimizer, device, expected):
    assert fused(optimizer, groups(nn.Linear(2, 2)), device=device).defaults["fused"] is expected


def test_one_that_cannot_be_fused_stays_as_it_is():
    assert isinstance(fused(partial(torch.optim.LBFGS), groups(nn.Linear(2, 2)), device=CUDA), torch.optim.LBFGS)


def test_the_fused_one_moves_weights_alike_also_with_a_loss_scaler():
    """The scaling is undone once: before the step, where clipping can see the gradients."""
    found = []
    for device in (CPU, torch.device("meta")):  # fused, and not
        torch.manual_seed(0)
        module, scaler = nn.Linear(8, 8), torch.amp.GradScaler("cpu", init_scale=1024.0)
        optimizer = fused(ADAMW, groups(module), device=device)
        for _ in range(5):
            optimizer.zero_grad()
            scaler.scale(module(torch.randn(4, 8)).square().mean()).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(module.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
        found.append(module.weight.detach())
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


class Small(LightningModule):
    """Trained by a fused optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return fused(partial(torch.optim.AdamW, lr=0.1, fused=True), groups(self), device=self.device)


def test_gradients_of_a_fused_optimizer_are_clipped_in_bf16(tmp_path):
    """Lightning refuses torch's own: `trainer=gpu` has both."""
    trainer = Trainer(
        accelerator="cpu", devices=1, precision="bf16-mixed", gradient_clip_val=1.0, max_steps=2, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    module = Small()
    before = module.layer.weight.detach().clone()
    trainer.fit(module, torch.ones(2, 3, 4))
    assert not torch.equal(module.layer.weight, before)


class Convolutions(ImageEncoder):
    """What convolutional towers are made of."""

    spec = ImageSpec(dim=16, size=16, resize="squash", interpolation="bilinear")

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.apart = nn.Sequential(nn.Conv2d(16, 16, 7, 1, 3, groups=16), nn.GELU(), nn.Conv2d(16, 16, 1))

    def forward(self, pixels: Tensor) -> Encoded:
        grid = self.first(pixels / 255)
        self.grid = grid + self.apart(grid)
        tokens = self.grid.flatten(2).transpose(1, 2)
        return Encoded(tokens, tokens.mean(1), tokens.new_ones(tokens.shape[:2]).bool())


def tiny() -> TinyImageEncoder:
    return TinyImageEncoder(size=16, dim=32, num_layers=1, freeze=False)


@pytest.mark.parametrize("make", [Convolutions, tiny], ids=["convolutions", "tiny"])
def test_channels_last_changes_no_output_no_gradient_and_no_key(make):
    pixels = torch.randint(256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    found = []
    for arranged in (False, True):
        torch.manual_seed(0)
        encoder = make()
        if arranged:
            channels_last(encoder)
        encoded = encoder(pixels.float())
        encoded.pooled.square().sum().backward()
        gradients = {name: part.grad.contiguous() for name, part in encoder.named_parameters()}
        found.append((encoder, encoded, gradients))
    (_, one, expected), (encoder, other, gradients) = found
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
    make().load_state_dict(encoder.state_dict())


def test_a_grid_follows_the_layout_of_the_weights():
    encoder = Convolutions()
    pixels = torch.zeros(2, 3, 16, 16)
    encoder(pixels)
    assert encoder.grid.is_contiguous()
    channels_last(encoder)
    encoder(pixels)
    assert encoder.grid.is_contiguous(memory_format=torch.channels_last)


def test_batches_are_pinned_whole(monkeypatch):
    """Every tensor of a batch, those within `Encoded` too, and it stays a `Batch`."""
    pinned = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    ids = torch.arange(2)
    encoded = Encoded(torch.zeros(2, 3, 4), torch.zeros(2, 4), torch.ones(2, 3).bool())
    batch = Batch(encoded, ids, ids[:, None], ids[:, None] >= 0, None, ids, ids)
    found = pin_memory(batch)
    assert isinstance(found, Batch)
    assert isinstance(found.image, Encoded)
    assert len(pinned) == 8


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip", "siglip"])
def test_vision_towers_of_the_library_attend_by_sdpa(tmp_path, family):
    encoder = HuggingFaceImageEncoder(
        name=str(publish(tmp_path, family)), weights="pretrained", projection=False, freeze=False
    )
    assert encoder.tower.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["bert", "minilm", "distilbert", "roberta", "modernbert"])
def test_text_towers_of_the_library_attend_by_sdpa(tmp_path, family):
    encoder = HuggingFaceTextEncoder(
        name=str(publish(tmp_path, family)), weights="pretrained", max_length=8, pooling="mean", freeze=False
    )
    assert encoder.tower.config._attn_implementation == "sdpa"


def test_own_layers_attend_by_sdpa(monkeypatch):
    """In training, where torch's own fast path does not apply."""
    calls, kernel = [], nn.functional.scaled_dot_product_attention

    def counted(*args: Any, **options: Any) -> Tensor:
        calls.append(1)
        return kernel(*args, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", counted)
    image = tiny()(torch.zeros(2, 3, 16, 16))
    text_encoder = TinyTextEncoder(vocabulary_size=40, max_length=9, dim=32, num_layers=1, freeze=False)
    text = text_encoder(torch.ones(2, 4).long(), torch.ones(2, 4).bool())
    assert len(calls) == 2
    fusion = FusionEncoder(dim=32, num_layers=1, num_heads=1, dropout=0.1)
    fusion(image, text)
    assert len(calls) == 4, "among words, and from words to patches"
    assert isinstance(text_encoder.spec, TextSpec)


def _faults(told: Any) -> None:
    """Page faults of a tensor of 64 MiB that is made for the twentieth time; the first ones find their places."""
    keep_freed_memory()
    for _ in range(20):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)
    told.put(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_what_a_tensor_leaves_is_kept_for_the_next():
    """In a process of its own, for what it changes; without it each of the 16,384 pages is a fault every time."""
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    process = context.Process(target=_faults, args=(told,))
    process.start()
    process.join(60)
    assert told.get() < 100
