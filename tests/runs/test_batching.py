"""Other batches than one caption of each image: they train every alignment, and resume like any other."""

from pathlib import Path

import pytest
from runs.test_resume import die_behind, record_of

ALIGNMENTS = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "conf" / "alignment").glob("*.yaml"))
GROUPED = ("batching=each_caption", "batching.group_by_length=true", "data.drop_last=false")


@pytest.mark.slow
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_all_captions_are_positives_of_every_alignment(train, tmp_path, alignment):
    ended = train(f"alignment={alignment}", "batching=all_captions", "trainer.max_epochs=1")
    assert ended.code == 0, ended.err
    # 96 images of one to five captions each
    assert record_of(tmp_path / "outputs")["budget"]["pairs_seen"] > 96


@pytest.mark.slow
@pytest.mark.parametrize("options", [GROUPED, ("batching=all_captions",)], ids=["each, grouped", "all"])
def test_a_killed_run_ends_as_one_that_was_not(train, tmp_path, options):
    options = (*options, "trainer.max_epochs=1", "resume_minutes=0.000001", "hydra.mode=RUN")
    assert train(*options, f"paths.outputs={tmp_path}/undisturbed").code == 0
    assert train(*options, before=lambda: die_behind(3)).code != 0
    ended = train(*options)
    assert "after 3 optimizer steps" in ended.out
    expected, found = record_of(tmp_path / "undisturbed"), record_of(tmp_path / "outputs")
    for part in ("metrics", "budget"):
        assert found[part] == expected[part], part
