"""`mmlit data shards`, then training on what it wrote, as a user does both."""

import signal

import numpy as np
import pytest
from runs.test_resume import die_behind, ranks_of, record_of

from mmlit.cli import main

#: far from the files' order: windows of two shards
WINDOWS = ("data=webdataset", "data.source.window=20", "data.batch_size=16", "resume_minutes=0.000001")


@pytest.fixture
def shards(scenes, tmp_path, monkeypatch, capsys):
    """The scenes as shards of ten images."""
    monkeypatch.chdir(tmp_path)
    command = ["data", "shards", "--out", str(tmp_path / "shards"), "data=scenes", "--per-shard", "10"]
    assert main([*command, f"data.root={scenes}", f"paths.cache={tmp_path}/cache"]) == 0
    assert f"Next: python train.py data=webdataset data.root={tmp_path}/shards\n" in capsys.readouterr().out
    return tmp_path / "shards"


@pytest.mark.slow
def test_results_on_shards_are_those_on_the_files(train, scenes, shards, tmp_path):
    """To the last digit: losses, validation, ranks; with workers, too."""
    assert train(f"paths.outputs={tmp_path}/files").code == 0
    ended = train("data=webdataset", f"data.root={shards}", "data.num_workers=2", "data.batch_size=16")
    assert ended.code == 0, ended.err
    assert "training on 96 images with 480 captions (train)" in ended.out
    files, found = record_of(tmp_path / "files"), record_of(tmp_path / "outputs")
    for part in ("metrics", "budget", "validation", "diagnostics", "gallery", "curves"):
        assert found[part] == files[part], part
    for name, array in ranks_of(tmp_path / "files").items():
        assert np.array_equal(ranks_of(tmp_path / "outputs")[name], array), name
    assert list((tmp_path / "outputs" / "galleries").iterdir()), "thumbnails for the report"


@pytest.mark.slow
def test_a_killed_run_on_shards_goes_on(train, shards, tmp_path):
    """Trap 28, in an order that is local; with workers and without gives the same."""
    options = (*WINDOWS, f"data.root={shards}")
    assert train(*options, "data.num_workers=0", f"paths.outputs={tmp_path}/undisturbed").code == 0
    for step in (2, 8):
        ended = train(*options, "data.num_workers=2", before=lambda step=step: die_behind(step))
        assert ended.code == -signal.SIGKILL, ended.err
    ended = train(*options, "data.num_workers=2")
    assert ended.code == 0, ended.err
    assert "after 8 optimizer steps" in ended.out
    expected, found = record_of(tmp_path / "undisturbed"), record_of(tmp_path / "outputs")
    for part in ("metrics", "budget", "validation"):
        assert found[part] == expected[part], part


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data=scenes", "data.rot=x"], "data.rot: no such option; did you mean data.root?"),
        (["data=scenes", "data.root=nowhere"], "data.root=nowhere is no folder"),
        (["data=scenes", "data.num_workers=x"], "data.num_workers"),
    ],
)
def test_wrong_words_are_told_in_a_line(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["data", "shards", *words, "--out", "out"])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
