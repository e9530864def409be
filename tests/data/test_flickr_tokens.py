"""Flickr8k's and Flickr30k's own files: three forms of captions, lists of images, and every fault by file and line."""

from functools import partial

import pytest
import torch
from data.real_files import content, is_compact, looked_for, module, picture

from mmlit.data.flickr_tokens import FlickrTokens

LISTS = {"train": ["a_1.jpg", "b_2.jpg"], "dev": ["c_3.jpg"], "test": ["d_4.jpg", "e_5.jpg"]}
CAPTIONS = {name: [f'{name} "no" 0, and so on .', f"{name} | one ."] for names in LISTS.values() for name in names}


def tokens(captions):
    lines = [f"{name}#{place}\t{text}\n" for name, texts in captions.items() for place, text in enumerate(texts)]
    return "".join(lines)


def table(captions):
    quoted = [(name, text.replace('"', '""')) for name, texts in captions.items() for text in texts]
    return "image,caption\n" + "".join(f'{name},"{text}"\n' for name, text in quoted)


def strokes(captions):
    lines = [f"{name}| {place}| {text}\n" for name, texts in captions.items() for place, text in enumerate(texts)]
    return "image_name| comment_number| comment\n" + "".join(lines)


def source(root, annotations="captions"):
    return FlickrTokens(
        root=root, annotations=annotations, splits="Flickr_8k.{split}Images.txt", images="Flicker8k_Dataset"
    )


@pytest.fixture
def root(tmp_path):
    for split, names in LISTS.items():
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_text("".join(f"{name}\n" for name in names))
    for number, name in enumerate(CAPTIONS):
        picture(tmp_path / "Flicker8k_Dataset" / name, number)
    (tmp_path / "captions").write_text(tokens(CAPTIONS))
    return tmp_path


@pytest.mark.parametrize("write", [tokens, table, strokes])
@pytest.mark.parametrize("windows", [False, True])
def test_reads_every_form(root, write, windows):
    """Commas, quotes and strokes inside captions, a byte-order mark, line ends of both kinds."""
    text = write(CAPTIONS)
    (root / "captions").write_bytes(
        b"\xef\xbb\xbf" * windows + text.replace("\n", "\r\n" if windows else "\n").encode()
    )
    captions = looked_for(source(root).read("train"))
    assert content(captions) == {f"Flicker8k_Dataset/{name}": CAPTIONS[name] for name in LISTS["train"]}
    assert is_compact(captions)
    assert captions.item(1, (3,)).image[:2] == b"\xff\xd8"


def test_the_forms_give_the_same_ids(root):
    found = []
    for write in (tokens, table, strokes):
        (root / "captions").write_text(write(CAPTIONS))
        found.append(looked_for(source(root).read("test")))
    assert len({tuple(captions.image_id.tolist()) for captions in found}) == 1
    assert len({tuple(captions.text_id.tolist()) for captions in found}) == 1
    assert len(set(found[0].text_id.tolist())) == 4


def test_order_is_that_of_the_list(root):
    path = root / "Flickr_8k.testImages.txt"
    path.write_text("e_5.jpg\n\nd_4\n")  # lists of Flickr30k leave out the ending
    assert list(content(looked_for(source(root).read("test")))) == [
        "Flicker8k_Dataset/e_5.jpg",
        "Flicker8k_Dataset/d_4.jpg",
    ]
    assert list(content(looked_for(source(root).read("test+dev"))))[2:] == ["Flicker8k_Dataset/c_3.jpg"]


def test_captions_of_a_picture_that_no_split_lists_are_left_alone(root):
    """The token file of Flickr8k names one picture that does not exist; that matters only if a list names it."""
    with (root / "captions").open("a") as file:
        file.write("2258277193_586949ec62.jpg.1#0\tPeople on ATVs .\n")
    assert looked_for(source(root).read("train")).num_images == 2
    with (root / "Flickr_8k.trainImages.txt").open("a") as file:
        file.write("2258277193_586949ec62.jpg\n")
    expected = r"trainImages\.txt: line 3: '2258277193_586949ec62\.jpg' has no caption in .*captions"
    with pytest.raises(ValueError, match=expected):
        looked_for(source(root).read("train"))
    (root / "Flickr_8k.trainImages.txt").write_text("a_1.jpg\n2258277193_586949ec62.jpg.1\n")
    expected = (
        r"trainImages\.txt: line 2 names '2258277193_586949ec62\.jpg\.1', which is not in .*Flicker8k_Dataset \(1 of 2"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        looked_for(source(root).read("train"))


def test_the_stroke_that_flickr30k_misses_once(root):
    text = strokes(CAPTIONS).replace("d_4.jpg| 1| d_4.jpg | one .", "d_4.jpg| 1   A dog runs across the grass .")
    (root / "captions").write_text(text)
    captions = looked_for(source(root).read("test"))
    assert content(captions)["Flicker8k_Dataset/d_4.jpg"] == [CAPTIONS["d_4.jpg"][0], "A dog runs across the grass ."]


@pytest.mark.parametrize(
    ("write", "old", "new", "message"),
    [
        (tokens, "c_3.jpg#1\t", "c_3.jpg#1 ", r"line 6 is not NAME#NUMBER<TAB>CAPTION: 'c_3\.jpg#1 c_3"),
        (tokens, "c_3.jpg#1\t", "c_3.jpg\t", "line 6 is not NAME#NUMBER"),
        (tokens, "c_3.jpg#1\t", "c_3.jpg#0\t", r"lines 5 and 6 are both caption 0 of 'c_3\.jpg'"),
        (tokens, "c_3.jpg | one .", " ", "line 6 has no caption, got ' '"),
        (
            strokes,
            "c_3.jpg| 1| c_3.jpg | one .",
            "c_3.jpg| 1",
            r"line 7 is not NAME\| NUMBER\| CAPTION: 'c_3\.jpg\| 1'",
        ),
        (strokes, "c_3.jpg| 1| c_3.jpg | one .", "c_3.jpg| 1| ", "line 7 has no caption, got ' '"),
        (strokes, "c_3.jpg| 1|", "c_3.jpg| 0|", "lines 6 and 7 are both caption 0"),
        (table, 'c_3.jpg,"c_3.jpg | one ."', "c_3.jpg,one,two", "line 7 has 3 cells, not image and caption"),
        (table, 'c_3.jpg,"c_3.jpg | one ."', 'c_3.jpg,"one" two', "line 7: .* expected after"),
        (table, 'c_3.jpg,"c_3.jpg | one ."', "c_3.jpg,", "line 7 has no caption, got ''"),
        (table, 'c_3.jpg,"c_3.jpg | one ."', ",one", "line 7 has 2 cells, not image and caption"),
    ],
)
def test_faults_anywhere_in_the_file_are_told_by_line(root, write, old, new, message):
    text = write(CAPTIONS)
    assert text.count(old) == 1
    (root / "captions").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=f"captions: {message}"):
        looked_for(source(root).read("test"))


def test_faults_of_the_lists_are_told_by_line(root):
    path = root / "Flickr_8k.trainImages.txt"
    path.write_text("a_1.jpg\nb_2.jpg\na_1.jpg\n")
    with pytest.raises(ValueError, match=r"trainImages\.txt: lines 1 and 3 both name 'a_1\.jpg'"):
        looked_for(source(root).read("train"))
    path.write_text("a_1.jpg\nc_3.jpg\n")
    expected = r"devImages\.txt: line 1 names an image that .*trainImages\.txt: line 2 names already"
    with pytest.raises(ValueError, match=expected):
        looked_for(source(root).read("train+dev"))
    path.write_text("\n")
    with pytest.raises(ValueError, match=r"trainImages\.txt: no names in it"):
        looked_for(source(root).read("train"))
    path.write_bytes(b"\xe9.jpg")
    with pytest.raises(ValueError, match=r"trainImages\.txt: not UTF-8"):
        looked_for(source(root).read("train"))


def test_missing_things_are_told(root):
    expected = r"split 'val': .*valImages\.txt not found \(splits found: dev, test, train\)"
    with pytest.raises(FileNotFoundError, match=expected):
        looked_for(source(root).read("val"))
    with pytest.raises(FileNotFoundError, match=r"captions\.txt not found; docs/coco\.md"):
        looked_for(source(root, "captions.txt").read("train"))
    (root / "Flicker8k_Dataset" / "e_5.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"testImages\.txt: line 2 names 'e_5\.jpg', which is not in"):
        looked_for(source(root).read("test"))
    for text in ("", "image,caption\n"):
        (root / "captions").write_text(text)
        with pytest.raises(ValueError, match="captions: no captions in it"):
            looked_for(source(root).read("train"))


def test_digest_sees_captions_lists_and_pictures(root):
    digests = {looked_for(source(root).read("train")).digest, looked_for(source(root).read("test")).digest}
    path = root / "Flicker8k_Dataset" / "a_1.jpg"
    path.write_bytes(path.read_bytes() + b"\0")
    digests.add(looked_for(source(root).read("train")).digest)
    (root / "captions").write_text(tokens(CAPTIONS | {"a_1.jpg": ["other"]}))
    digests.add(looked_for(source(root).read("train")).digest)
    assert len(digests) == 4


def test_trains_and_reports_through_the_data_module(root):
    reader = partial(
        FlickrTokens, annotations="captions", splits="Flickr_8k.{split}Images.txt", images="Flicker8k_Dataset"
    )
    data = module(root, reader, val="dev")
    assert [batch.image.shape for batch in data.train_dataloader()] == [(2, 3, 8, 8)]
    reported = list(data.test_dataloader())
    assert len(torch.cat([batch.text_id for batch in reported]).unique()) == 4


def test_an_image_in_two_lists_is_refused(root):
    """Trap 9."""
    (root / "Flickr_8k.devImages.txt").write_text("a_1.jpg\n")
    reader = partial(
        FlickrTokens, annotations="captions", splits="Flickr_8k.{split}Images.txt", images="Flicker8k_Dataset"
    )
    with pytest.raises(ValueError, match="share 1 images"):
        module(root, reader, val="dev")
