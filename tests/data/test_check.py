"""`mmlit data check`: what it finds, what it leaves, and that the copy it writes is sound."""

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from data.real_files import content, picture
from filelock import FileLock
from PIL import Image

from mmlit.cli import main
from mmlit.data.captions import Captions
from mmlit.data.check import pictures as pictures_module
from mmlit.data.check.pictures import pictures
from mmlit.data.tables import TablePairs


@pytest.fixture
def spoilt(tmp_path) -> Path:
    """Eight sound pictures of 12 in two splits, and everything that can be wrong with pairs."""
    root = tmp_path / "data"
    for number in range(12):
        picture(root / "im" / f"{number}.jpg", number)
    (root / "im" / "1.jpg").write_bytes((root / "im" / "1.jpg").read_bytes()[:300])
    (root / "im" / "2.jpg").unlink()
    (root / "im" / "3.jpg").write_bytes((root / "im" / "4.jpg").read_bytes())  # two names in one split
    (root / "im" / "5.jpg").write_bytes((root / "im" / "11.jpg").read_bytes())  # and in two
    rows = [[f"im/{n}.jpg", f"caption {n}", "train" if n < 10 else "test", "red"] for n in range(12)]
    rows += [
        ["im/6.jpg", "", "train", ""],
        ["im/6.jpg", "two\nlines", "train", "blue"],
        ["im/10.jpg", "x", "train", ""],
    ]
    rows += [["im/6.jpg", "caption 6", "train", ""], ["im/7.jpg", "caption 6", "train", ""]]
    rows += [["im/8.jpg", "a", "trian", ""], ["im/8.jpg", "b", "dev", ""], ["im/9.jpg", "c", "trian", ""]]
    with (root / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption", "split", "tags"], *rows])
    return root


def options(root: Path, *further: str) -> list[str]:
    return [
        "data", "check", "data=pairs", f"data.root={root}", "data.source.file=pairs.csv", "data.source.split=split",
        "data.source.tags=tags", "data.train=train", "data.val=1", "data.test=test", *further,
    ]  # fmt: skip


def test_everything_that_is_wrong_is_named_by_row(spoilt, tmp_path, capsys):
    """Trap 9: also that two splits share a picture under two names."""
    assert main(options(spoilt, "--json", str(tmp_path / "found.json"), "text_encoder=tiny")) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    rows = {kind: [(row["split"], row["place"]) for row in each["rows"]] for kind, each in found["findings"].items()}
    assert rows == {
        "split": [],
        "row": [("train", "pairs.csv: line 14")],
        "missing": [("train", "pairs.csv: line 4")],
        "unreadable": [("train", "pairs.csv: line 3")],
        "shared": [("train", "pairs.csv: line 17")],
        "leak": [("train", "pairs.csv: line 7")],
        "unnamed": [("trian", "pairs.csv: line 20"), ("dev", "pairs.csv: line 21")],
        "same_file": [("train", "pairs.csv: line 6")],
        "same_pair": [("train", "pairs.csv: line 18")],
        "same_caption": [("train", "pairs.csv: line 8")],
    }
    assert found["wrong"] is True
    train = found["splits"]["train"]
    assert (train["images"], train["pairs"]) == (11, 14)
    assert train["captions_per_image"] == {"min": 1, "mean": 1.27, "max": 3, "histogram": {"1": 9, "2": 1, "3": 1}}
    assert train["words"]["histogram"] == {"1": 1, "2": 13}
    assert train["tokens"]["max"] == 3
    assert train["tags"] == {"red": 10, "blue": 1}
    assert train["pictures"]["formats"] == {"JPEG": 9}
    assert train["pictures"]["missing"] == train["pictures"]["unreadable"] == 1
    printed = capsys.readouterr().out
    assert "pairs.csv: line 3 names 'im/1.jpg': " in printed
    assert "(pairs.csv: line 13)" in printed
    assert "5 things are wrong" in printed
    assert (
        "note: rows of splits that no option names: 2\n  pairs.csv: line 20 is the first of 2 rows of split" in printed
    )
    assert "pairs.csv: line 21 is the only row of split 'dev'" in printed


def test_the_copy_has_nothing_wrong_and_the_original_is_left_alone(spoilt, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in spoilt.rglob("*")}
    assert main(options(spoilt, "--fix", str(tmp_path / "copy"))) == 1
    assert {path: path.stat().st_mtime_ns for path in spoilt.rglob("*")} == before
    printed = capsys.readouterr().out
    assert "unnamed 3" in printed
    assert "hard links\na link is the picture itself: one that is edited in place changes in the original" in printed
    command = shlex.split(printed.splitlines()[-1])
    assert command[:2] == ["python", "train.py"]
    assert main(["data", "check", *command[2:], "--json", str(tmp_path / "copy.json")]) == 0
    found = json.loads((tmp_path / "copy.json").read_text())
    assert found["splits"]["test"]["pairs"] == 2
    assert found["splits"]["train"]["tags"] == {"red": 6, "blue": 1}
    source = TablePairs(
        root=tmp_path / "copy", file="pairs.jsonl", images=".", columns=None, delimiter=None, image="image",
        caption="caption", image_id="image_id", split="split", tags="tags",
    )  # fmt: skip
    kept = content(source.read("train"))
    assert kept["pictures/im/3.jpg"] == ["caption 3", "caption 4"]  # equal files are one picture
    assert kept["pictures/im/6.jpg"] == ["caption 6", "two\nlines"]
    assert set(kept) == {f"pictures/im/{n}.jpg" for n in (0, 3, 6, 7, 8, 9)}
    left_out = [json.loads(line) for line in (tmp_path / "copy" / "left_out.jsonl").read_text().splitlines()]
    by_kind = {row["kind"]: [row[key] for key in ("reason", "image", "caption")] for row in left_out}
    assert by_kind["missing"] == ["there is no such file", "im/2.jpg", "caption 2"]
    assert by_kind["leak"] == ["equal to 'im/11.jpg' of test (pairs.csv: line 13)", "im/5.jpg", "caption 5"]
    assert by_kind["same_pair"] == ["repeats pairs.csv: line 8", "im/6.jpg", "caption 6"]
    assert by_kind["unreadable"][1:] == ["im/1.jpg", "caption 1"]
    assert "runcated" in by_kind["unreadable"][0]
    assert by_kind["row"] == ["has no caption or an empty one, got ''", None, None]
    assert sorted(row["kind"] for row in left_out) == [
        "leak",
        "missing",
        "row",
        "same_pair",
        "shared",
        "unnamed",
        "unnamed",
        "unreadable",
    ]


@pytest.mark.parametrize("where", ["data/copy", "data"])
def test_a_copy_goes_to_a_new_folder_outside(spoilt, capsys, monkeypatch, where):
    """Which is known before anything is read."""
    monkeypatch.setattr(TablePairs, "survey", lambda *_: pytest.fail("read"))
    with pytest.raises(SystemExit):
        main(options(spoilt, "--fix", str(spoilt.parent / where)))
    assert "--fix" in capsys.readouterr().err


def test_what_a_killed_writing_left_is_gone_after_the_next(spoilt, tmp_path, capsys):
    left = tmp_path / ".copy.unfinished"
    (left / "pictures" / "im").mkdir(parents=True)
    (left / "pictures" / "im" / "0.jpg").write_bytes(b"half")
    (left / ".lock").touch()
    with FileLock(left / ".lock"), pytest.raises(SystemExit):
        main(options(spoilt, "--fix", str(tmp_path / "copy")))
    assert "another process writes it" in capsys.readouterr().err
    assert main(options(spoilt, "--fix", str(tmp_path / "copy"))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "data"}
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"pairs.jsonl", "left_out.jsonl", "pictures"}
    picture_of = lambda root, name: (root / name).read_bytes()  # noqa: E731
    assert picture_of(tmp_path / "copy" / "pictures", "im/0.jpg") == picture_of(spoilt, "im/0.jpg")


def test_other_data_is_checked_and_mended_too(coco, tmp_path, capsys):
    """COCO's layout, whose pictures two folders hold; an image whose id is another split's too is left out."""
    coco("train", {1: ["a", "b"], 2: ["c"]}, year="2014")
    coco("val", {1: ["d"], 3: ["e", "e"]}, year="2014", first_caption=10)
    for path in (tmp_path / "val2014").iterdir():  # the ids are the same, the pictures are not
        picture(path, 77 + int(path.stem[-1]))
    words = ["data", "check", "data=coco2014", f"data.root={tmp_path}", "data.val=1", "--fix"]
    assert main([*words, str(tmp_path.parent / "mended")]) == 1
    printed = capsys.readouterr().out
    assert (
        "images row 0 (id 1) names 'train2014/COCO_train2014_000000000001.jpg', whose id 1 is also that of" in printed
    )
    assert "left out: shared 2, same_pair 1;" in printed
    assert main(["data", "check", *shlex.split(printed.splitlines()[-1])[2:]]) == 0
    kept = [json.loads(line) for line in (tmp_path.parent / "mended" / "pairs.jsonl").read_text().splitlines()]
    assert [(row["image_id"], row["split"]) for row in kept] == [(2, "train"), (1, "val"), (3, "val")]


def test_one_thing_and_nothing_are_told_as_such(tmp_path, capsys):
    for number in range(2):
        picture(tmp_path / "data" / f"{number}.jpg", number)
    table = tmp_path / "data" / "pairs.csv"
    table.write_text("image,caption,split,tags\n0.jpg,x,train,\n1.jpg,y,test,\n1.jpg,,test,\n")
    assert main(options(tmp_path / "data")) == 1
    assert "\n1 thing is wrong\n" in (printed := capsys.readouterr().out)
    assert "train: 1 size: 12" in printed
    table.write_text("image,caption,split,tags\n0.jpg,x,train,\n1.jpg,y,test,\n")
    assert main(options(tmp_path / "data", "--fix", str(tmp_path / "copy"))) == 0
    assert "\nleft out: nothing\npython train.py" in capsys.readouterr().out


def test_a_split_of_which_nothing_is_left_is_told(tmp_path, capsys):
    for number in range(2):
        picture(tmp_path / "data" / f"{number}.jpg", number)
    rows = ["0.jpg,x,1,train,", "1.jpg,y,1,test,"]
    (tmp_path / "data" / "pairs.csv").write_text("\n".join(["image,caption,id,split,tags", *rows]))
    with pytest.raises(SystemExit):
        main(options(tmp_path / "data", "data.source.image_id=id", "--fix", str(tmp_path / "copy")))
    assert "--fix: nothing would be left of split train" in capsys.readouterr().err


def test_a_split_that_cannot_be_read_does_not_hide_the_others(coco, tmp_path, capsys):
    coco("train", {1: ["a"], 2: ["b"], 3: ["c"]}, year="2014")
    assert main(["data", "check", "data=coco2014", f"data.root={tmp_path}", "data.val=1"]) == 1
    assert "val cannot be read: split 'val'" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["data", "check", "data=coco2017", f"data.root={tmp_path}", "data.val=1"])
    with pytest.raises(SystemExit):
        main(["data", "check", "data=pairs"])
    assert "data.root: must be given" in capsys.readouterr().err


def test_every_kind_of_picture_is_described(tmp_path, monkeypatch):
    """Two processes decode what one would."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    rgba = Image.fromarray(noise, "RGBA")
    rgb = rgba.convert("RGB")
    rgb.save(tmp_path / "plain.jpg")
    rgb.convert("L").save(tmp_path / "grey.jpg")
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg")
    rgb.quantize(8).save(tmp_path / "palette.png")
    rgba.save(tmp_path / "clear.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    rgb.save(tmp_path / "moving.gif", save_all=True, append_images=[rgb.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "zz_bomb.png")
    (tmp_path / "zz_none.jpg").write_bytes(b"<html>")
    files = sorted(path.name for path in tmp_path.iterdir())
    captions = Captions.assemble(
        root=tmp_path, source=tmp_path, files=files, image_id=range(len(files)), owner=range(len(files)), texts=files,
        text_id=range(len(files)), digest="",
    )  # fmt: skip
    monkeypatch.setattr(pictures_module, "_FEW", 0)
    monkeypatch.setattr(pictures_module, "_CHUNK", 4)
    found = {files[each.image]: each for each in pictures(captions, np.arange(len(files)), workers=2, told="")}
    assert {name: each.marks for name, each in found.items()} == {
        "plain.jpg": (), "grey.jpg": ("greyscale",), "cmyk.jpg": ("CMYK",), "palette.png": ("palette",),
        "clear.png": ("transparency",), "deep.png": ("greyscale", "16 bits"), "moving.gif": ("palette", "animated"),
        "turned.jpg": ("turned by EXIF",), "one.png": ("one pixel wide or high",), "zz_bomb.png": (), "zz_none.jpg": (),
    }  # fmt: skip
    assert [name for name, each in found.items() if each.error] == ["zz_bomb.png", "zz_none.jpg"]
    assert "bomb" in found["zz_bomb.png"].error
    assert (found["turned.jpg"].width, found["turned.jpg"].height) == (7, 9)
