"""Crisscrossed Captions from its CSV files."""

from pathlib import Path

import pytest
import torch

from mmlit.evaluation.cxc import CrisscrossedCaptions
from mmlit.evaluation.eccv_caption import EccvCaption
from mmlit.evaluation.truth import Truth

HEADER = "caption,image,agg_score,sampling_method"


def row(text: int, image: int, rating: float | str, method: str = "c2i_intrasim") -> str:
    return f"COCO_val2014:sentid:{text},COCO_val2014_{image:012d}.jpg,{rating},{method}"


def read(root: Path, *rows: str, header: str = HEADER) -> Truth:
    (root / "cxc").mkdir(exist_ok=True)
    (root / "cxc/sits_test.csv").write_text("\n".join([header, *rows]) + "\n")
    return CrisscrossedCaptions(root=root, split="test", ratings="cxc/sits_{split}.csv").read()


def test_ratings_both_ways(tmp_path: Path) -> None:
    truth = read(tmp_path, row(732091, 365325, 2.2), row(11, 9, "5.0", "c2i_original"), row(11, 365325, "0.0"))
    assert [part.tolist() for part in truth.i2t] == [[9, 365325, 365325], [11, 732091, 11], [5, 2.2, 0]]
    assert [part.tolist() for part in truth.t2i] == [[11, 11, 732091], [9, 365325, 365325], [5, 0, 2.2]]
    assert truth.graded
    assert truth.threshold == 3
    assert not len(truth.optional_text_id)


def test_a_sixth_caption_may_be_absent(tmp_path: Path) -> None:
    """Trap 7: which of an image's six captions the usual gallery keeps is not in this file."""
    own = [row(text, 1, 4.5, "c2i_original") for text in range(10, 16)]
    truth = read(tmp_path, *own, row(20, 2, 4.5, "c2i_original"), row(20, 1, 2.0))
    assert truth.optional_text_id.tolist() == [10, 11, 12, 13, 14, 15]


def test_a_pair_that_is_rated_twice_counts_once(tmp_path: Path) -> None:
    truth = read(tmp_path, row(1, 2, 2.5), row(1, 2, 3.5, "c2i_original"), row(1, 2, 1.0))
    assert truth.i2t.grade.tolist() == [3.5]


def test_positives_are_those_of_the_published_code(tmp_path: Path) -> None:
    """The package's positives written as a CSV file, each with a rating of 3 or more, beside others below it."""
    theirs = EccvCaption(root=tmp_path, split="test", positives="cxc").read()
    pairs = zip(theirs.t2i.query_id.tolist(), theirs.t2i.item_id.tolist(), strict=True)
    rows = [row(text, image, f"{3 + number % 21 / 10:.2f}") for number, (text, image) in enumerate(pairs)]
    images = theirs.i2t.query_id.unique().tolist()
    rows += [row(10**7 + number, image, "2.99") for number, image in enumerate(images)]
    ours = read(tmp_path, *rows)
    for one, other in ((ours.i2t, theirs.i2t), (ours.t2i, theirs.t2i)):
        positive = one.grade >= ours.threshold
        found = torch.stack([one.query_id[positive], one.item_id[positive]], 1).unique(dim=0)
        assert torch.equal(found, torch.stack([other.query_id, other.item_id], 1))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("a,b,c", "line 3 is not caption,image,agg_score,sampling_method: a,b,c"),
        (row(1, 2, "high"), "line 3 is not .*high"),
        ("COCO_val2014:sentid:x,COCO_val2014_000000000009.jpg,1,c2i_original", "line 3 is not"),
        (row(1, 2, "5.1"), "line 3: agg_score must be 0…5, got 5.1"),
        (row(1, 2, "nan"), "line 3: agg_score must be 0…5, got nan"),
    ],
)
def test_a_broken_row_is_refused_by_its_line(tmp_path: Path, bad: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, row(3, 4, 1.0), bad)


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="the first line must be caption,image,agg_score,sampling_method, got caption1"
    ):
        read(tmp_path, header="caption1,caption2,agg_score,sampling_method")
    with pytest.raises(FileNotFoundError, match=r"there is no .*sits_val.csv"):
        CrisscrossedCaptions(root=tmp_path, split="val", ratings="cxc/sits_{split}.csv").read()
