"""What a tracker is told of a run."""

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from mmlit.configuration.stored import CONF
from mmlit.run.job import Job, job_of
from mmlit.run.tracking import tracked_run, trackers
from mmlit.training.trackers.tracked_run import flattened


def job(tmp_path, *overrides: str) -> Job:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = [f"paths.outputs={tmp_path}/alignments", *overrides]
        return job_of(compose("config", given, return_hydra_config=True))


def test_options_are_flat_and_classes_left_out():
    config = {"a": {"_target_": "x.Y", "b": {"c": 1.5, "d": None}, "e": [1, {"f": 2}], "g": {}}, "h": True}
    assert flattened(config) == {"a.b.c": 1.5, "a.b.d": "null", "a.e": '[1, {"f": 2}]', "a.g": "{}", "h": True}


def test_a_run_is_named_by_its_folder_and_grouped_by_the_sweeps(tmp_path):
    asked = job(tmp_path, "alignment=joint", "alignment.dim=64", "seed=3")
    run = tracked_run(asked)
    assert run.name == asked.directory.name
    assert run.name.startswith("scenes-joint-seed3-")
    assert (run.group, run.job_type, run.resumed_step) == ("alignments", "joint", None)
    assert run.choices == {"data": "scenes", "image_encoder": "tiny", "text_encoder": "tiny", "alignment": "joint"}
    assert run.parameters["alignment.dim"] == 64
    assert run.parameters["choices.alignment"] == "joint"
    assert len(run.parameters["code.hash"]) == 16
    assert "code.commit" in run.parameters


def test_a_run_goes_on_where_its_checkpoint_is(tmp_path):
    asked = job(tmp_path)
    (asked.directory / "checkpoints").mkdir(parents=True)
    torch.save({"global_step": 7, "state_dict": {}}, asked.directory / "checkpoints" / "resume.ckpt")
    assert tracked_run(asked).resumed_step == 7


def test_without_a_logger_nothing_watches(tmp_path):
    assert trackers(job(tmp_path, "logger=[]")) == ([], [])
