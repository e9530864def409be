"""Rows are named by what differs."""

from mmlit.results.labels import labels, silent_settings
from mmlit.results.settings import Identity

FACTS = {"scored": "full", "split": "test", "gallery": "g", "protocol": "p", "data": "d"}


def one(facts: dict[str, str] | None = None, settings: dict[str, str] | None = None, **choices: str) -> Identity:
    return Identity(choices, settings or {}, FACTS | (facts or {}))


def test_a_single_row_is_named_by_its_alignment() -> None:
    assert labels([one(alignment="joint", data="scenes")]) == ["joint"]
    assert labels([one()]) == ["run"]


def test_the_only_axis_stands_bare() -> None:
    assert labels([one(alignment=name, data="scenes") for name in ("projection", "joint")]) == [
        "projection",
        "joint",
    ]
    assert labels([one(alignment="joint", data=name) for name in ("scenes", "flickr8k")]) == [
        "scenes",
        "flickr8k",
    ]


def test_of_several_axes_only_the_alignment_stands_bare() -> None:
    rows = [one(alignment="joint", text_encoder="bert"), one(alignment="projection", text_encoder="minilm")]
    assert labels(rows) == ["joint, text_encoder=bert", "projection, text_encoder=minilm"]


def test_settings_are_named_where_equal_choices_differ_in_them() -> None:
    rows = [
        one(alignment="projection", settings={"alignment.margin": "0.2", "optimizer.lr": "0.001"}),
        one(alignment="joint", settings={"alignment.depth": "2", "optimizer.lr": "0.001"}),
        one(alignment="joint", settings={"alignment.depth": "4", "optimizer.lr": "0.001"}),
    ]
    assert labels(rows) == ["projection", "joint, alignment.depth=2", "joint, alignment.depth=4"]
    only = [one(settings={"optimizer.lr": lr}, alignment="joint") for lr in ("0.1", "0.2")]
    assert labels(only) == ["optimizer.lr=0.1", "optimizer.lr=0.2"]


def test_what_goes_without_saying_is_not_said() -> None:
    rows = [one(alignment=name, image_encoder="mobilenet_v2") for name in ("projection", "joint")]
    rows.append(one(alignment="zero_shot", image_encoder="clip"))
    assert labels(rows, {"image_encoder": "mobilenet_v2"}) == ["projection", "joint", "zero_shot, image_encoder=clip"]
    same = [one(alignment="joint", image_encoder=name) for name in ("mobilenet_v2", "clip")]
    assert labels(same, {"image_encoder": "mobilenet_v2"}) == ["joint", "clip"]


def test_what_was_measured_is_named_only_as_far_as_needed() -> None:
    rows = [one({"split": split, "gallery": split}, alignment="joint") for split in ("val", "test")]
    assert labels(rows) == ["split=val", "split=test"]


def test_a_setting_that_only_some_have_still_gives_different_names() -> None:
    names = labels([one(alignment="joint"), one(alignment="joint", settings={"alignment.extra": "1"})])
    assert names == ["joint", "alignment.extra=1"]
    assert labels([one(settings={"a": "1, b=2"}), one(settings={"a": "1", "b": "2"})]) == [
        "a=1, b=2",
        "a=1, b=2 #2",
    ]


def test_settings_that_differ_silently_are_found() -> None:
    rows = [
        one(alignment="projection", settings={"alignment.margin": "0.2", "optimizer.lr": "0.001"}),
        one(alignment="joint", settings={"optimizer.lr": "0.01"}),
        one(alignment="joint", settings={"optimizer.lr": "0.01", "optimizer.warmup": "5"}),
    ]
    names = labels(rows)
    assert names == ["projection", "joint", "joint, optimizer.warmup=5"]
    assert silent_settings(rows, names) == {
        "optimizer.lr": {"0.001": ["projection"], "0.01": ["joint", "joint, optimizer.warmup=5"]}
    }
