"""Weight files: all of a file is used, or the file is refused."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmlit.layers.weights import is_weight_file, load_exactly, read_weights


def test_a_suffix_tells_a_file_from_a_name() -> None:
    assert [is_weight_file(name) for name in ("a/b.safetensors", "b.pt", "b.pth", "IMAGENET1K_V2", "pretrained")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_formats_hold_the_same(tmp_path: Path) -> None:
    weights = {"weight": torch.randn(2, 3), "bias": torch.randn(2)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        read = read_weights(str(tmp_path / name))
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[key], weights[key]) for key in weights)


def test_half_precision_is_loaded_into_single() -> None:
    module = nn.Linear(3, 2)
    load_exactly(module, {"weight": torch.ones(2, 3).half(), "bias": torch.ones(2).half()}, source="x", dropped=())
    assert module.weight.dtype == torch.float32
    assert module.weight.sum() == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, r"x does not fit the model, keys: 1 missing \(bias\)"),
        ({"extra": torch.ones(1)}, r"keys: 1 unexpected \(extra\)"),
        ({"bias": None, "extra": torch.ones(1)}, r"1 missing \(bias\); 1 unexpected \(extra\)"),
        ({f"k{i}": torch.ones(1) for i in range(9)}, r"9 unexpected \(k0, k1, k2, k3, k4, …\)"),
        ({"bias": torch.ones(3)}, r"1 of another shape \(bias \[3\] instead of \[2\]\)"),
    ],
)
def test_keys_that_do_not_fit_are_listed(change: dict[str, torch.Tensor | None], message: str) -> None:
    weights = {"weight": torch.ones(2, 3), "bias": torch.ones(2), "head": torch.ones(1)} | change
    given = {key: value for key, value in weights.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        load_exactly(nn.Linear(3, 2), given, source="x", dropped=["head"])


def test_no_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"weights=/no/such\.pt: no such file"):
        read_weights("/no/such.pt")


class _Code:
    """Something that is no tensor."""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"junk" * 9, "cannot be read"),
        ("a.safetensors", b"", "cannot be read"),
        ("a.pt", b"junk" * 9, "cannot be read: it is damaged or holds more than tensors"),
        ("a.pt", b"", "cannot be read"),
        (
            "a.pt",
            pickle.dumps({"weight": _Code()}, protocol=2),
            "cannot be read: it is damaged or holds more than tensors",
        ),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"weights=.*{name} {message}") as refused:
        read_weights(str(tmp_path / name))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("size", [0.3, 0.9])
def test_truncated_files(tmp_path: Path, size: float) -> None:
    for name, save in (("w.pt", torch.save), ("w.safetensors", save_file)):
        save({"weight": torch.randn(100, 100)}, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(size * len(whole))])
        with pytest.raises(ValueError, match="cannot be read"):
            read_weights(str(tmp_path / name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"weight": torch.ones(1)}, "epoch": 3}, "it holds entries epoch, state_dict"),
        (torch.ones(2), "it holds a Tensor"),
        ({}, "it holds entries "),
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"must be a state dict.*{message}"):
        read_weights(str(tmp_path / "a.pt"))
