"""`mmlit.load`: a trained model in Python."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from layers.published import publish
from PIL import Image

import mmlit

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkpoint(train, tmp_path) -> Path:
    assert train("alignment=cross_attention", "trainer.max_epochs=1").code == 0
    (path,) = tmp_path.rglob("*.ckpt")
    return path


@pytest.fixture
def gallery(scenes) -> tuple[list[Path], list[str], list[int]]:
    """Pictures and captions of the test split, and for each caption the number of its picture."""
    table = json.loads((scenes / "annotations" / "captions_test2017.json").read_text())
    number = {image["id"]: place for place, image in enumerate(table["images"])}
    files = [scenes / "test2017" / image["file_name"] for image in table["images"]]
    rows = table["annotations"]
    return files, [row["caption"] for row in rows], [number[row["image_id"]] for row in rows]


def test_scores_give_the_numbers_of_the_record(checkpoint, gallery):
    files, texts, owner = gallery
    model = mmlit.load(checkpoint.parents[1])
    scores = model.score(model.encode_images(files), model.encode_texts(texts))
    assert scores.shape == (len(files), len(texts))
    own = scores.gather(0, torch.tensor(owner)[None])
    t2i_rank = (scores >= own).sum(0)
    record = json.loads((checkpoint.parents[1] / "result.json").read_text())
    assert 100 * (t2i_rank <= 5).double().mean().item() == pytest.approx(record["metrics"]["t2i_r5"])


def test_a_file_its_bytes_and_its_picture_are_the_same_in_any_batches(checkpoint, gallery):
    files, texts, _ = gallery
    model = mmlit.load(checkpoint)
    expected = model.encode_images(files[:5])
    mixed = [files[0], str(files[1]), files[2].read_bytes(), Image.open(files[3]), files[4]]
    torch.testing.assert_close(model.encode_images(mixed, batch_size=2), expected)
    one, other = model.encode_texts(texts[:7]), model.encode_texts(texts[:7], batch_size=2)
    assert torch.equal(one.mask, other.mask)
    torch.testing.assert_close(model.score(expected, one), model.score(expected, other))
    assert not model.training


def test_what_is_no_model_is_refused_by_name(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such run or checkpoint"):
        mmlit.load(tmp_path / "gone.ckpt")
    with pytest.raises(FileNotFoundError, match="no folder of a finished run"):
        mmlit.load(tmp_path)
    (checkpoint.parent / "other.ckpt").write_bytes(checkpoint.read_bytes())
    with pytest.raises(ValueError, match=r"best.ckpt, other.ckpt\): name one"):
        mmlit.load(checkpoint.parents[1])


def test_a_class_that_the_project_does_not_name_is_never_built(checkpoint, tmp_path):
    """Trap 35: a configuration that came with weights runs no code of its maker's."""
    stored = torch.load(checkpoint, weights_only=True)
    stored["mmlit"]["origin"]["config"]["alignment"] = {"_target_": "os.system", "command": f"touch {tmp_path}/done"}
    torch.save(stored, checkpoint)
    with pytest.raises(ValueError, match=r"names alignment._target_=os.system, which no file of conf/ does"):
        mmlit.load(checkpoint)
    assert not (tmp_path / "done").exists()


def test_wrong_arguments_are_refused(checkpoint):
    model = mmlit.load(checkpoint)
    with pytest.raises(ValueError, match="texts must be a list"):
        model.encode_texts("a red circle")
    with pytest.raises(ValueError, match="images must be a list with something in it, got an empty one"):
        model.encode_images([])
    with pytest.raises(ValueError, match=r"not a readable picture: of no format that is read here$"):
        model.encode_images([b"x"])
    with pytest.raises(ValueError, match=r"an image must be a path, .*fromarray makes one of an array.*, got Tensor"):
        model.encode_images([torch.zeros(3, 32, 32)])
    with pytest.raises(ValueError, match="a text must be a string, got 1"):
        model.encode_texts([1])
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        model.encode_texts(["a"], batch_size=0)
    with pytest.raises(ValueError, match="image must be what encode_images gave, got list"):
        model.score(["a.jpg"], model.encode_texts(["a"]))


@pytest.mark.slow
def test_a_tower_is_found_from_another_folder_than_that_of_the_training(scenes, tmp_path, monkeypatch):
    """In a process of its own: tokenizers that have worked do not survive a fork."""
    publish(tmp_path / "towers" / "bert", "bert")
    command = [
        sys.executable, str(ROOT / "train.py"), "text_encoder=bert", "text_encoder.name=towers/bert",
        "text_encoder.max_length=16", "image_encoder.dim=32", "alignment.dim=32", "data.batch_size=16",
        f"data.root={scenes}", "trainer.max_epochs=1",
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, timeout=200)
    (run,) = (path.parent for path in tmp_path.rglob("result.json"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(mmlit.load(run).encode_texts(["a cat", "a dog"]).pooled) == 2
    (tmp_path / "towers").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"name=.*towers.bert is no directory"):
        mmlit.load(run)


def test_a_configuration_without_a_part_is_told(checkpoint):
    stored = torch.load(checkpoint, weights_only=True)
    del stored["mmlit"]["origin"]["config"]["alignment"]
    torch.save(stored, checkpoint)
    with pytest.raises(ValueError, match=r"best\.ckpt: its configuration has no alignment"):
        mmlit.load(checkpoint)


def test_weights_of_another_alignment_are_told_briefly(checkpoint):
    stored = torch.load(checkpoint, weights_only=True)
    stored["state_dict"] = {key: value for key, value in stored["state_dict"].items() if "alignment" not in key}
    torch.save(stored, checkpoint)
    with pytest.raises(ValueError, match=r"does not fit the model, keys: \d+ missing \(alignment") as told:
        mmlit.load(checkpoint)
    assert len(str(told.value)) < 600
