"""The files of the data set: layouts, ids, tags, held-out combinations, true pairs and hard negatives.

Captions are judged from the files alone, by a reader of sentences that shares nothing with the grammar.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmlit.data.scenes.world import COLOURS, HELD_OUT, SHAPES
from mmlit.data.scenes.write import write_scenes

COUNTS = {"train": 90, "val": 60, "test": 120}
SPLITS = tuple(COUNTS)


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "deep" / "scenes"
    write_scenes(root=folder, **COUNTS, size=32, seed=0, workers=1)
    return folder


def test_coco_layout(root: Path) -> None:
    for split, count in COUNTS.items():
        captions = load(root / f"annotations/captions_{split}2017.json")
        assert list(captions) == ["info", "licenses", "images", "annotations"]
        assert set(captions["images"][0]) == {"id", "file_name", "height", "width"}
        assert set(captions["annotations"][0]) == {"id", "image_id", "caption"}
        names = {image["file_name"] for image in captions["images"]}
        assert names == {path.name for path in (root / f"{split}2017").iterdir()}
        assert len(names) == count
        assert all(image["file_name"] == f"{image['id']:012d}.jpg" for image in captions["images"])
        for image in captions["images"]:
            texts = [a["caption"] for a in captions["annotations"] if a["image_id"] == image["id"]]
            assert len(texts) == len(set(texts)) == 5
        with Image.open(root / f"{split}2017" / min(names)) as picture:
            assert (picture.format, picture.size, picture.mode) == ("JPEG", (32, 32), "RGB")
            assert {component[1:3] for component in picture.layer} == {(1, 1)}  # no chroma subsampling


def test_ids_are_unique_over_all_splits(root: Path) -> None:
    for kind, per_image in (("captions", 5), ("instances", None)):
        files = [load(root / f"annotations/{kind}_{split}2017.json") for split in SPLITS]
        images = [image["id"] for file in files for image in file["images"]]
        annotations = [annotation["id"] for file in files for annotation in file["annotations"]]
        assert len(images) == len(set(images)) == sum(COUNTS.values())
        assert len(annotations) == len(set(annotations))
        assert per_image is None or len(annotations) == per_image * len(images)
        assert max(images + annotations) < 2**31


def test_tags_are_the_words_of_the_graph(root: Path) -> None:
    instances = load(root / "annotations/instances_test2017.json")
    graphs = load(root / "annotations/scene_graphs_test2017.json")["images"]
    names = {category["id"]: category["name"] for category in instances["categories"]}
    assert sorted(names.values()) == sorted(SHAPES + COLOURS)
    assert {"id", "image_id", "category_id", "bbox", "area", "iscrowd"} == set(instances["annotations"][0])
    for graph in graphs:
        tags = [a for a in instances["annotations"] if a["image_id"] == graph["image_id"]]
        words = sorted(names[tag["category_id"]] for tag in tags)
        assert words == sorted(thing[key] for thing in graph["objects"] for key in ("shape", "colour"))
        for tag in tags:
            x, y, width, height = tag["bbox"]
            assert 0 <= x < x + width <= 32
            assert 0 <= y < y + height <= 32
            assert 0 < tag["area"] <= width * height + 0.1


def test_held_out_combinations_are_in_test_only(root: Path) -> None:
    shown = {}
    for split in SPLITS:
        graphs = load(root / f"annotations/scene_graphs_{split}2017.json")
        assert {(pair["colour"], pair["shape"]) for pair in graphs["held_out_combinations"]} == HELD_OUT
        for image in graphs["images"]:
            combinations = {(thing["colour"], thing["shape"]) for thing in image["objects"]}
            assert image["held_out"] is bool(combinations & HELD_OUT)
            shown.setdefault(split, set()).update(combinations)
    assert not (shown["train"] | shown["val"]) & HELD_OUT
    assert shown["test"] >= HELD_OUT


# The reader of sentences, written from the rules that the documentation states.

SIZE = {"small": "small", "little": "small", "large": "large", "big": "large"}
NUMBER = {"one": 1, "two": 2, "three": 3, "four": 4}
PHRASE = (
    r"(?:(?:small|little|large|big) )?"
    rf"(?:(?:{'|'.join(COLOURS)}) )?"
    rf"(?:(?:{'|'.join(SHAPES)}|shape|object)(?:e?s)?)\b"
)
RELATION = {
    r"(?:to the )?left of|to its left": "L",
    r"(?:to the )?right of|to its right": "R",
    r"above it|above|higher than": "A",
    r"below it|below|lower than": "B",
}
# What the skeleton of a sentence claims: (subject, n-th relation word, target).
CLAIMS = {
    "X # X": [(0, 0, 1)],
    "# X X": [(1, 0, 0)],
    "X with X #": [(1, 0, 0)],
    "X and, #, X": [(1, 0, 0)],
    "X # X, and X": [(0, 0, 1)],
    "X # and # X": [(0, 0, 1), (0, 1, 1)],
    "X # X and # X": [(0, 0, 1), (0, 1, 2)],
    "X # both X and X": [(0, 0, 1), (0, 0, 2)],
}
# These say nothing but what their phrases say.
PLAIN = {"X", "X and X", "X, X and X", "X together with X", "both X and X"}
PLAIN |= {"only X and X", "just X and X", "nothing but X and X", "N: X, X and X"}
PLAIN |= {"N", "N and X", "N, X and X", "N and N", "N, K", "N, K and K"}


def fits(thing: dict[str, Any], phrase: str) -> bool:
    for word in phrase.split():
        single = next((shape for shape in SHAPES if word in (shape, shape + "s", shape + "es")), None)
        if word in SIZE and thing["size"] != SIZE[word]:
            return False
        if word in COLOURS and thing["colour"] != word:
            return False
        if single and thing["shape"] != single:
            return False
    return True


def read_and_judge(text: str, things: list[dict[str, Any]]) -> bool:
    opening = r"^(a picture of|an image with|this scene has|the picture shows|we see) "
    text = re.sub(r"\b(there (is|are)|also|is) ", "", re.sub(opening, "", text))
    parts: dict[str, list[tuple[str, ...]]] = {"K": [], "N": [], "X": [], "#": []}

    def keep(letter: str, text: str, pattern: str) -> str:
        parts[letter] = re.findall(pattern, text)
        return re.sub(pattern, letter, text)

    adjective = "|".join((*SIZE, *COLOURS))
    text = keep("K", text, rf"\b(one|two|three|both|all) of them (?:an? )?({PHRASE}|{adjective})")
    text = keep("N", text, rf"\b(one|two|three|four) ({PHRASE})")
    text = keep("X", text, rf"\ban? ()({PHRASE})")
    relations = re.findall("|".join(RELATION), text)
    skeleton = re.sub("|".join(RELATION), "#", text)
    assert skeleton in PLAIN | CLAIMS.keys(), f"cannot read {text!r}"
    letters = [next(sign for regex, sign in RELATION.items() if re.fullmatch(regex, r)) for r in relations]
    for word, phrase in parts["N"] + parts["K"]:
        number = NUMBER.get(word, len(things))
        if sum(fits(thing, phrase) for thing in things) != number:
            return False
    if re.match("only|just|nothing", skeleton) and len(things) != 2:
        return False
    for chosen in itertools.permutations(things, len(parts["X"])):
        described = all(fits(thing, phrase) for thing, (_, phrase) in zip(chosen, parts["X"], strict=True))
        if described and all(stands(chosen[a], letters[r], chosen[b]) for a, r, b in CLAIMS.get(skeleton, [])):
            return True
    return False


def stands(subject: dict[str, Any], letter: str, target: dict[str, Any]) -> bool:
    (x, y), (u, v) = subject["centre"], target["centre"]
    return {"L": u - x, "R": x - u, "A": v - y, "B": y - v}[letter] >= 0.18


@pytest.mark.parametrize("split", ["val", "test"])
def test_true_pairs_are_those_that_a_reader_finds(root: Path, split: str) -> None:
    captions = load(root / f"annotations/captions_{split}2017.json")["annotations"]
    graphs = load(root / f"annotations/scene_graphs_{split}2017.json")["images"]
    pairs = load(root / f"annotations/true_pairs_{split}2017.json")
    assert list(pairs) == [str(caption["id"]) for caption in captions]
    for caption in captions:
        true = [g["image_id"] for g in graphs if read_and_judge(caption["caption"], g["objects"])]
        assert pairs[str(caption["id"])] == true, caption
        assert caption["image_id"] in true
    assert any(len(true) > 1 for true in pairs.values())


@pytest.mark.parametrize("split", ["val", "test"])
def test_hard_negatives_in_sugarcrepe_layout(root: Path, split: str) -> None:
    graphs = load(root / f"annotations/scene_graphs_{split}2017.json")["images"]
    things = {graph["file_name"]: graph["objects"] for graph in graphs}
    files = sorted(path.stem for path in (root / "sugarcrepe" / split).iterdir())
    assert files == sorted(
        [*(f"replace_{what}" for what in ("att", "colour", "count", "obj", "rel", "size")), "swap_att", "swap_obj"]
    )
    for name in files:
        items = load(root / "sugarcrepe" / split / f"{name}.json")
        assert list(items) == [str(number) for number in range(len(items))]
        assert len(items) > COUNTS[split] / (3 if name == "replace_count" else 2)
        for item in items.values():
            assert set(item) == {"filename", "caption", "negative_caption"}
            assert read_and_judge(item["caption"], things[item["filename"]])
            assert not read_and_judge(item["negative_caption"], things[item["filename"]])


# What each kind of mistake replaces by what; nothing else in the sentence may change.
REPLACED = {
    "replace_colour": set(COLOURS) | {"a", "an"},
    "replace_obj": {form for shape in SHAPES for form in (shape, f"{shape}s", f"{shape}es")} | {"a", "an"},
    "replace_size": set(SIZE) | {"a", "an"},
    "replace_rel": {"left", "right", "above", "below", "higher", "lower"},
}


@pytest.mark.parametrize("name", REPLACED)
def test_a_kind_of_mistake_changes_words_of_that_kind_alone(root: Path, name: str) -> None:
    for item in load(root / f"sugarcrepe/test/{name}.json").values():
        true, false = (re.findall(r"\w+", item[key]) for key in ("caption", "negative_caption"))
        changed = [pair for pair in zip(true, false, strict=True) if pair[0] != pair[1]]
        assert changed
        assert {word for pair in changed for word in pair} <= REPLACED[name], item


def test_a_wrong_count_changes_one_number(root: Path) -> None:
    """Numbers, and the plurals and articles that go with them; a reader without the picture sees no contradiction."""
    rises = []
    items = [
        item for split in ("val", "test") for item in load(root / f"sugarcrepe/{split}/replace_count.json").values()
    ]
    for item in items:
        numbers, words = [], []
        for text in (item["caption"], item["negative_caption"]):
            found = re.findall(r"\b(?:one|two|three|four|both|all)\b", text)
            numbers.append([NUMBER.get(word, NUMBER.get(found[0], 0)) for word in found])
            rest = re.sub(r"\b(?:one|two|three|four|both|all|an?)\b", "", text)
            words.append([word.rstrip("es") for word in rest.split()])
        assert words[0] == words[1], item
        true, false = numbers
        (change,) = [b - a for a, b in zip(true, false, strict=True) if a != b]
        rises.append(change > 0)
        if "of them" in item["negative_caption"]:
            assert sum(false[1:]) <= false[0] <= 4, item
        else:
            assert sum(false) <= 4, item
    assert 0.3 < sum(rises) / len(rises) < 0.7  # larger or smaller: the number alone does not give it away
