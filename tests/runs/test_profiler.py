"""`trainer.profiler=...` leaves its report in the run's folder."""

import pytest

SMALL = ("alignment=projection", "trainer.max_epochs=1", "+trainer.limit_train_batches=2", "callbacks=[last]")
WANTED = {"simple": "[Strategy]SingleDeviceStrategy.training_step", "advanced": "ncalls", "pytorch": "Self CPU"}


@pytest.mark.parametrize("name", WANTED)
def test_the_report_lies_in_the_run_folder(train, tmp_path, name):
    ended = train(f"trainer.profiler={name}", *SMALL)
    assert ended.code == 0, ended.err
    (folder,) = (path.parent for path in tmp_path.rglob("result.json"))
    for stage in ("fit", "test"):
        report = (folder / f"{stage}-profile.txt").read_text()
        assert report.startswith(f"{stage.upper()} Profiler Report")
    assert WANTED[name] in (folder / "fit-profile.txt").read_text()
    assert not [path for path in tmp_path.rglob("*profile*") if path.parent != folder], "nothing lies elsewhere"
    assert "Profiler Report" not in ended.out + ended.err


def test_without_it_there_is_no_report(train, tmp_path):
    assert train(*SMALL).code == 0
    assert not list(tmp_path.rglob("*profile*"))


def test_a_wrong_name_is_one_line_that_names_the_choices(train, tmp_path):
    ended = train("trainer.profiler=smiple")
    assert ended.code == 2
    assert ended.err == "train.py: trainer.profiler must be simple, advanced, pytorch or null, got 'smiple'\n"
    assert not (tmp_path / "outputs").exists()
