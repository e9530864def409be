"""Tables of pairs: every form, every refusal by file and row."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.real_files import content, is_compact, looked_for, module, picture

from mmlit.data.columns import tags_of_images, within
from mmlit.data.folder import stable_id
from mmlit.data.tables import TablePairs

ROWS = [("a.jpg", "a dog"), ("b.jpg", "a cat"), ("a.jpg", 'a "big", brown dog')]
JOINED = {"a.jpg": ["a dog", 'a "big", brown dog'], "b.jpg": ["a cat"]}


def table(root: Path, file: str, **options) -> TablePairs:
    defaults = {"images": ".", "columns": None, "delimiter": None, "image": "image", "caption": "caption"}
    optional = dict.fromkeys(("image_id", "split", "tags"))
    return TablePairs(root=root, file=file, **{**defaults, **optional, **options})


def one_file(*, root) -> TablePairs:
    return table(Path(root), "x.csv")


def written(root: Path, file: str, text: str, encoding: str = "utf-8") -> Path:
    (root / file).write_bytes(text.encode(encoding))
    return root / file


def write_form(root: Path, ending: str) -> str:
    rows = [{"image": image, "caption": caption} for image, caption in ROWS]
    file = f"pairs.{ending}"
    quoted = '"a ""big"", brown dog"'
    if ending == "csv":
        written(root, file, f"image,caption\r\na.jpg,a dog\r\n\r\nb.jpg,a cat\r\na.jpg,{quoted}\r\n", "utf-8-sig")
    elif ending == "tsv":  # as Conceptual Captions writes quotes: plain
        written(root, file, "image\tcaption\n" + "".join(f"{image}\t{caption}\n" for image, caption in ROWS))
    elif ending == "json":
        written(root, file, json.dumps(rows))
    elif ending == "jsonl":
        written(root, file, "\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), root / file)
    return file


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_form_reads_the_same(tmp_path, ending):
    """Trap 33: Arrow and NumPy only. Rows of one picture are joined."""
    captions = table(tmp_path, write_form(tmp_path, ending)).read("all")
    assert content(captions) == JOINED
    assert is_compact(captions)
    assert captions.image_id.tolist() == [stable_id("a.jpg"), stable_id("b.jpg")]
    assert captions.text_id.tolist() == [stable_id(key) for key in ("a.jpg#0", "a.jpg#1", "b.jpg#0")]
    first = {"csv": "line 4", "tsv": "line 3"}.get(ending, "line 2" if ending == "jsonl" else "row 1")
    assert captions.places[1].as_py() == f"pairs.{ending}: {first}"


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_a_caption_may_be_a_list(tmp_path, ending):
    rows = [{"image": "a.jpg", "caption": ["one", " two "]}, {"image": "b.jpg", "caption": ["three"]}]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    else:
        written(tmp_path, f"x.{ending}", json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)))
    assert content(table(tmp_path, f"x.{ending}").read("all")) == {"a.jpg": ["one", "two"], "b.jpg": ["three"]}


def test_a_headerless_file_in_the_manner_of_conceptual_captions(tmp_path):
    written(tmp_path, "Train.tsv", "a dog 's bone\t00/1.jpg\n\"quoted\tand not closed.jpg\n")
    captions = table(tmp_path, "Train.tsv", columns=["caption", "image"], images="pics").read("all")
    assert content(captions) == {"pics/00/1.jpg": ["a dog 's bone"], "pics/and not closed.jpg": ['"quoted']}
    assert captions.places[0].as_py() == "Train.tsv: line 1"


def test_whole_cells_of_tsv_may_be_quoted(tmp_path):
    written(tmp_path, "x.tsv", 'image\tcaption\n"a.jpg"\t"a ""big"" dog"\nb.jpg\t"so" he "said"\n')
    assert content(table(tmp_path, "x.tsv").read("all")) == {"a.jpg": ['a "big" dog'], "b.jpg": ['"so" he "said"']}


def test_paths_are_spelt_in_one_way(tmp_path):
    here = tmp_path / "im" / "a.jpg"
    written(tmp_path, "x.csv", f"image,caption\n./a.jpg,1\n{here},2\nb//../a.jpg,3\n../im/a.jpg,4\n a.jpg ,5\n")
    assert content(table(tmp_path, "x.csv", images="im").read("all")) == {"im/a.jpg": ["1", "2", "3", "4", "5"]}


@pytest.mark.parametrize(
    ("delimiter", "file", "lines"),
    [
        ("|", "x.csv", ["image | number| caption", 'a.jpg| 0| "Stop", it says, "now".', 'b.jpg| 1| "so; on"']),
        (";", "x.csv", ["image;number;caption", 'a.jpg;0;"""Stop"", it says, ""now""."', 'b.jpg;1;"so; on"']),
        ("tab", "x.csv", ["image\tnumber\tcaption", 'a.jpg\t0\t"Stop", it says, "now".', "b.jpg\t1\tso; on"]),
        (",", "x.tsv", ["image,number,caption", 'a.jpg,0,"""Stop"", it says, ""now""."', "b.jpg,1,so; on"]),
    ],
)
def test_other_delimiters(tmp_path, delimiter, file, lines):
    """Flickr30k's own table, European spreadsheets; told where the first row shows it."""
    written(tmp_path, file, "\n".join(lines))
    with pytest.raises(ValueError, match=re.escape(f"'data.source.delimiter=\"{delimiter}\"'")):
        table(tmp_path, file).read("all")
    captions = table(tmp_path, file, delimiter=delimiter, image_id="number").read("all")
    assert content(captions) == {"a.jpg": ['"Stop", it says, "now".'], "b.jpg": ["so; on"]}
    assert captions.image_id.tolist() == [0, 1]


def test_delimiters_that_are_none(tmp_path):
    for delimiter in ("", "||", " ", '"'):
        with pytest.raises(ValueError, match=r"data\.source\.delimiter must be one character"):
            table(tmp_path, "x.csv", delimiter=delimiter)
    written(tmp_path, "x.json", "[]")
    with pytest.raises(ValueError, match=r"delimiter=; is of a CSV or TSV file; .*x\.json is none"):
        table(tmp_path, "x.json", delimiter=";").read("all")
    written(tmp_path, "x.csv", "image|caption\na.jpg|x\nb.jpg 4 y\n")
    with pytest.raises(
        ValueError, match=r"line 3 has 1 cell, not 2; write a file whose captions hold '\|' or new lines"
    ):
        table(tmp_path, "x.csv", delimiter="|").read("all")


def test_ids_and_tags(tmp_path):
    text = 'image,caption,id,tags\na.jpg,x,0012,"red, blue"\nb.jpg,y,-7,\na.jpg,z,0012,blue;green\n'
    written(tmp_path, "x.csv", text)
    captions = table(tmp_path, "x.csv", image_id="id", tags="tags").read("all")
    assert captions.image_id.tolist() == [12, -7]
    assert captions.tags.to_pylist() == [["red", "blue", "green"], []]
    written(tmp_path, "y.csv", text.replace("-7", "seven"))
    assert captions.texts.equals((other := table(tmp_path, "y.csv", image_id="id").read("all")).texts)
    assert other.image_id.tolist() == [stable_id("0012"), stable_id("seven")]


def test_tags_and_places_of_rows_in_any_order():
    owner = np.array([1, 0, 1, 1, 0])
    assert within(owner).tolist() == [0, 0, 1, 2, 1]
    tags = pa.array([["b", "a"], [], [" a", "", "c"], None, ["z", "z"]], pa.large_list(pa.large_string()))
    assert tags_of_images(tags, owner, 2).to_pylist() == [["z"], ["b", "a", "c"]]


def test_parquet_numbers_that_became_floats_are_ids(tmp_path):
    columns = {"image": ["a", "b"], "caption": ["x", "y"], "id": [3.0, 4.0]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert table(tmp_path, "x.parquet", image_id="id").read("all").image_id.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("x.csv", 'image,caption\na.jpg,"two\nlines"\nb.jpg,\n', "x.csv: line 4 has no caption or an empty one"),
        ("x.csv", "image,caption\na.jpg,a dog, running\n", "x.csv: line 2 has 3 cells, not 2"),
        ("x.csv", 'image,caption\na.jpg,"open\nb.jpg,x\n', "x.csv: line 2 is no row of a table"),
        ("x.csv", "image,caption\n,x\n", "x.csv: line 2 has no image, got ''"),
        ("x.csv", "image,caption\nhttp://a.b/c.jpg,x\n", "line 2 names the address 'http://a.b/c.jpg'.*img2dataset"),
        ("x.csv", "image,caption\n/etc/a.jpg,x\n", "line 2 names '/etc/a.jpg', which does not lie below data.root"),
        ("x.csv", "image,caption\nb/../../a.jpg,x\n", "line 2 names 'b/../../a.jpg', which is no file below"),
        ("x.csv", "file,title\na,b\n", r"no column 'image' \(data.source.image\); there are: 'file', 'title'; a"),
        ("x.csv", "image,image,caption\na,b,c\n", "2 columns 'image'"),
        ("x.csv", "", "x.csv is empty"),
        ("x.parquet", "", "x.parquet is empty"),
        ("x.csv", 'image,"caption\n', "x.csv: line 1 is no row of a table"),
        ("x.csv", "image,caption\n", "x.csv has no rows"),
        ("x.csv", "image,caption\n\n", "x.csv has no rows"),
        ("x.jsonl", "\n", "x.jsonl has no rows"),
        ("x.json", '{"image": "a"}', "x.json: no list of rows"),
        ("x.json", "[{", "x.json: broken JSON"),
        ("x.json", '[{"image": "a", "caption": 3}]', "x.json: row 0 has caption 3: a string is wanted"),
        ("x.json", '[{"file": "a", "caption": "b"}]', "x.json: no column 'image'.*there are: 'file', 'caption'"),
        ("x.json", '[{"image": "a", "caption": []}]', "x.json: row 0 has no caption"),
        ("x.json", '[{"image": "a", "caption": ["x", null]}]', "x.json: row 0 has no caption or an empty"),
        ("x.json", '[{"image": "a", "caption": "\\ud800"}]', "x.json: row 0 is not UTF-8"),
        ("x.jsonl", '{"image": "a", "caption": "b"}\n\n[1]\n', "x.jsonl: line 3 is list, not an object"),
        ("x.jsonl", '{"image": "a", "caption": "b"}\n{"im', "x.jsonl: line 2 is broken JSON"),
        ("x.parquet", "PAR", "x.parquet: no Parquet file"),
        ("x.txt", "a", "x.txt: a table of pairs ends in .*, .csv, .tsv, .json, .jsonl, not '.txt'; export it as CSV"),
    ],
)  # fmt: skip
def test_refusals_name_file_and_row(tmp_path, file, text, told):
    written(tmp_path, file, text)
    with pytest.raises(ValueError, match=told):
        table(tmp_path, file).read("all")


def test_a_folder_is_no_table(tmp_path):
    (tmp_path / "im").mkdir()
    with pytest.raises(
        ValueError, match=r"data\.source\.file: .*/im is a folder; .*data=folder_pairs data\.root=.*/im$"
    ):
        table(tmp_path, "im").read("all")


def test_other_encodings_are_told(tmp_path):
    written(tmp_path, "x.csv", "image,caption\na.jpg,a dog\nb.jpg,caf\xe9\n", "latin-1")
    told = r"x\.csv is not UTF-8 \(first at line 3\); convert it: iconv -f latin1 -t utf8 x\.csv > utf8\.csv"
    with pytest.raises(ValueError, match=told):
        table(tmp_path, "x.csv").survey("all")
    written(tmp_path, "x.tsv", "image\tcaption\n", "utf-16")
    with pytest.raises(ValueError, match=r"x\.tsv: UTF-16; write it as UTF-8"):
        table(tmp_path, "x.tsv").read("all")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("a.jpg,x,1\na.jpg,y,2\n", r"line 3 gives 'a.jpg' the image id 2, x.csv: line 2 gives it 1"),
        ("a.jpg,x,1\nb.jpg,y,1\n", r"line 3 gives 'b.jpg' the image id 1, x.csv: line 2 gives that to 'a.jpg'"),
        ("a.jpg,x,\n", "line 2 has no image id"),
    ],
)
def test_ids_that_contradict(tmp_path, rows, told):
    written(tmp_path, "x.csv", f"image,caption,id\n{rows}")
    with pytest.raises(ValueError, match=told):
        table(tmp_path, "x.csv", image_id="id").read("all")


def test_all_bad_rows_are_found_and_the_rest_is_kept(tmp_path):
    text = 'image,caption,id\na.jpg,x,1\na.jpg,,1\nb.jpg,y,1\nc.jpg\n,z,3\nd.jpg,"d\nd",4\ne.jpg,e,\nd.jpg,d,4\n'
    written(tmp_path, "x.csv", text)
    survey = table(tmp_path, "x.csv", image_id="id").survey("all")
    assert [row.place for row in survey.bad] == [f"x.csv: line {line}" for line in (3, 4, 5, 6, 9)]
    assert content(survey.captions) == {"a.jpg": ["x"], "d.jpg": ["d\nd", "d"]}
    assert survey.captions.image_id.tolist() == [1, 4]
    assert survey.places.to_pylist() == [f"x.csv: line {line}" for line in (2, 7, 10)]
    with pytest.raises(
        ValueError, match=r"line 3 has no caption.*\(5 such rows in this split; mmlit data check lists what"
    ):
        table(tmp_path, "x.csv", image_id="id").read("all")


def test_rows_of_splits_that_no_option_names_are_told(tmp_path):
    """Also where the table was read before, and of a part that is set aside."""
    for number in range(9):
        picture(tmp_path / f"{number}.jpg", number)
    parts = ["train"] * 4 + ["trian", "val", "dev", " trian ", "test"]
    rows = "".join(f"{number}.jpg,caption,{part}\n" for number, part in enumerate(parts))
    written(tmp_path, "x.csv", f"image,caption,part\n{rows}")
    source = lambda root: table(Path(root), "x.csv", split="part")  # noqa: E731
    for val, told in (("val", ""), (1, "val 1 (first: x.csv: line 7), ")):
        for _ in range(2):
            data = module(tmp_path, source, val=val, cache=tmp_path / "cache")
            assert data.unnamed_splits() == f"trian 2 (first: x.csv: line 6), {told}dev 1 (first: x.csv: line 8)"
    assert module(tmp_path, source, train="train+trian", val="val+dev").unnamed_splits() == ""


def test_splits_of_one_file_and_of_several(tmp_path):
    written(tmp_path, "x.csv", "image,caption,part\na.jpg,1,train\nb.jpg,2,val\nc.jpg,3, train \na.jpg,4,train\n")
    source = table(tmp_path, "x.csv", split="part")
    assert content(source.read("train")) == {"a.jpg": ["1", "4"], "c.jpg": ["3"]}
    assert content(source.read("val+train")) == {"a.jpg": ["1", "4"], "b.jpg": ["2"], "c.jpg": ["3"]}
    assert source.read("train").digest != source.read("val").digest
    with pytest.raises(
        ValueError, match=r"split 'all': .*none such in column 'part' \(splits found: train, val\); name"
    ):
        source.read("all")
    for name in ("train", "val"):
        written(tmp_path, f"{name}.csv", f"image,caption\n{name}.jpg,{name}\n")
    many = table(tmp_path, "{split}.csv")
    assert content(many.read("val+train")) == {"val.jpg": ["val"], "train.jpg": ["train"]}
    assert many.inputs("val+train") == [tmp_path / "val.csv", tmp_path / "train.csv"]
    assert many.read("val+train").places.to_pylist() == ["val.csv: line 2", "train.csv: line 2"]
    with pytest.raises(FileNotFoundError, match=r"split 'all'.*\(splits found: train, val, x\); name yours"):
        many.read("all")
    with pytest.raises(ValueError, match=r"split 'train': .*has one split, 'all'.*data\.source\.split"):
        table(tmp_path, "train.csv").read("train")
    with pytest.raises(ValueError, match=r"data\.source\.split=part is of no use"):
        table(tmp_path, "{split}.csv", split="part")
    written(tmp_path, "x.csv", "image,caption,part\na.jpg,1,train\nb.jpg,2,\n")
    with pytest.raises(ValueError, match=r"x\.csv: line 3 is of no split"):
        table(tmp_path, "x.csv", split="part").read("train")


@pytest.mark.parametrize(
    ("val", "test", "sizes"), [(0.1, 0.25, (13, 2, 5)), (3, 4, (13, 3, 4)), (0.001, 1, (18, 1, 1))]
)
def test_one_file_trains_selects_and_reports_on_images_apart(tmp_path, val, test, sizes):
    """Trap 9: what is reported on is set aside first, so that it does not depend on what selection takes."""
    for number in range(20):
        picture(tmp_path / f"{number}.jpg", number)
    rows = "".join(f"{number % 20}.jpg,caption {number}\n" for number in range(60))
    written(tmp_path, "x.csv", f"image,caption\n{rows}")
    options = {"train": "all", "val": val, "cache": tmp_path / "cache"}
    data = module(tmp_path, one_file, **options, test=test)
    ids = {part: set(data.readers[part].captions.image_id.tolist()) for part in ("train", "val", "test")}
    assert tuple(len(ids[part]) for part in ("train", "val", "test")) == sizes
    assert len(set.union(*ids.values())) == 20
    assert data.names["test"] == f"{test} of all"
    again = module(tmp_path, one_file, **{**options, "val": 5}, test=test)
    assert set(again.readers["test"].captions.image_id.tolist()) == ids["test"]


@pytest.mark.parametrize(("changes", "told"), [
    ({"val": 0.0}, r"data\.val=0\.0 to set aside"), ({"test": 1.0}, r"data\.test=1\.0"), ({"val": -1}, r"data\.val=-1"),
    ({"test": 20}, r"data\.test=20 images to set aside must lie in 1 … 2"),
    ({"val": 2, "test": 1}, r"data\.val=2 images to set aside must lie in 1 … 1"),
])  # fmt: skip
def test_shares_out_of_range_are_refused(tmp_path, changes, told):
    for name in "abc":
        picture(tmp_path / f"{name}.jpg")
    written(tmp_path, "x.csv", "image,caption\na.jpg,x\nb.jpg,y\nc.jpg,z\n")
    with pytest.raises(ValueError, match=told):
        module(tmp_path, one_file, **{"train": "all", "val": 1, "test": 1, **changes})


def test_a_missing_picture_is_told_by_file_and_line(tmp_path):
    picture(tmp_path / "b.jpg")
    with pytest.raises(FileNotFoundError, match=r"csv: line 2 names 'a.jpg'.*\(1 of 2 .*\); mmlit data check lists"):
        looked_for(table(tmp_path, write_form(tmp_path, "csv")).read("all"))
