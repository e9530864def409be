"""The small image encoder."""

import pytest
import torch

from mmlit.image_encoders.tiny import TinyImageEncoder


def test_grid_and_pooling() -> None:
    encoder = TinyImageEncoder(size=32, dim=32, num_layers=1, freeze=False)
    encoded = encoder(torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8))
    assert encoded.tokens.shape == (3, 16, 32)
    torch.testing.assert_close(encoded.pooled, encoded.tokens.mean(1))
    assert encoded.mask.shape == (3, 16)
    assert encoded.mask.all()


def test_tokens_lie_where_the_picture_changes() -> None:
    """Rows from the top left: a white square in one cell moves that cell's token most."""
    torch.manual_seed(0)
    encoder = TinyImageEncoder(size=32, dim=32, num_layers=0, freeze=True)
    black = torch.zeros(1, 3, 32, 32)
    white = black.clone()
    white[..., 4:12, 12:20] = 255  # around the middle of the cell's receptive field
    moved = (encoder(white).tokens - encoder(black).tokens).norm(dim=2)[0]
    assert moved.argmax() == 4 * 1 + 2  # row 1, column 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 30}, "size must be a multiple of 8, got 30"),
        ({"size": 0}, "size must be a multiple of 8, got 0"),
        ({"dim": 48}, "dim must be a multiple of 32, got 48"),
    ],
)
def test_wrong_numbers(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TinyImageEncoder(**({"size": 32, "dim": 32, "num_layers": 1, "freeze": False} | options))
