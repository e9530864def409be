"""Heads that carry two encoders' vectors into one space."""

import math

import pytest
import torch

from mmlit.contracts import ImageSpec, TextSpec
from mmlit.layers.heads import GatedUnit, HeadKind, SharedSpace, head

IMAGE = ImageSpec(dim=6, size=32, resize="squash", interpolation="bilinear")
TEXT = TextSpec(dim=4, vocabulary_size=50, mask_id=2, special_ids=(0, 1, 2), max_length=8)
KINDS: tuple[HeadKind, ...] = ("linear", "mlp", "gated")


def space(
    *, dim: int | None = 5, image_head: HeadKind = "linear", text_head: HeadKind = "linear", dropout: float = 0.0
) -> SharedSpace:
    return SharedSpace(image=IMAGE, text=TEXT, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_for_vectors_and_tokens(kind: HeadKind) -> None:
    module = head(kind, dim_in=6, dim_out=5, dropout=0.0)
    assert module(torch.randn(3, 6)).shape == (3, 5)
    assert module(torch.randn(3, 7, 6)).shape == (3, 7, 5)


def test_identity_returns_what_it_gets() -> None:
    x = torch.randn(3, 6)
    module = head("identity", dim_in=6, dim_out=6, dropout=0.0)
    assert torch.equal(module(x), x)
    assert not list(module.parameters())


def test_gated_unit_by_hand() -> None:
    """W = 2, b = 1, V = −1, c = 3 on x = 2: z = 5, gate σ(3 − 5), product 5 σ(−2)."""
    unit = GatedUnit(dim_in=1, dim_out=1)
    for parameter, value in zip(unit.parameters(), (2.0, 1.0, -1.0, 3.0), strict=True):
        torch.nn.init.constant_(parameter, value)
    torch.testing.assert_close(unit(torch.tensor([[2.0]])), torch.tensor([[5 / (1 + math.exp(2))]]))


def test_an_identity_head_of_another_width_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"keeps the encoder's width 6, but the shared space has dim 5: set alignment"):
        space(dim=5, image_head="identity")
    with pytest.raises(ValueError, match=r"keeps the encoder's width 4.*set alignment\.dim=4 \(or null\)"):
        space(dim=5, text_head="identity")
    with pytest.raises(ValueError, match=r"keeps the encoder's width 4"):
        space(dim=None, image_head="identity", text_head="identity")


def test_null_takes_the_width_of_the_identity_side() -> None:
    """Identity maps one side into the other's own space: its unit vectors are the encoder's, scaled."""
    to_image = space(dim=None, image_head="identity")
    assert to_image.dim == IMAGE.dim
    assert space(dim=None, text_head="identity").dim == TEXT.dim
    pooled = torch.randn(3, 6)
    torch.testing.assert_close(to_image.embed_image(pooled), pooled / pooled.norm(dim=1, keepdim=True))
    assert to_image.embed_text(torch.randn(2, 4)).shape == (2, 6)


def test_null_without_an_identity_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alignment\.dim may be null only where one head is identity"):
        space(dim=None)


@pytest.mark.parametrize("dim", [0, -3])
def test_dim_out_of_range_is_refused(dim: int) -> None:
    with pytest.raises(ValueError, match=rf"dim must be >= 1, got {dim}"):
        space(dim=dim)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 3.0])
def test_dropout_out_of_range_is_refused_whatever_the_head(dropout: float) -> None:
    for kind in KINDS:
        with pytest.raises(ValueError, match=rf"dropout must lie in \[0, 1\), got {dropout}"):
            space(image_head=kind, dropout=dropout)


def test_an_unknown_head_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="a head must be identity, linear, mlp or gated, got 'deep'"):
        head("deep", dim_in=4, dim_out=4, dropout=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_unit_vectors_in_fp32_even_under_autocast(kind: HeadKind) -> None:
    """Traps 3 and 18: whatever the precision of the head, what is compared has length 1 to fp32's accuracy."""
    torch.manual_seed(0)
    both = space(image_head=kind, text_head=kind)
    with torch.autocast("cpu", torch.bfloat16):
        image, text = both.embed_image(30 * torch.randn(9, 6)), both.embed_text(torch.randn(9, 4))
    for embedded in (image, text):
        assert embedded.dtype == torch.float32
        torch.testing.assert_close(embedded.norm(dim=1), torch.ones(9), rtol=0, atol=1e-6)


def test_dropout_only_while_training() -> None:
    torch.manual_seed(0)
    both = space(image_head="mlp", text_head="mlp", dropout=0.5)
    pooled = torch.randn(3, 6)
    assert not torch.equal(both.embed_image(pooled), both.embed_image(pooled))
    both.eval()
    assert torch.equal(both.embed_image(pooled), both.embed_image(pooled))
