"""Event files, read back by TensorBoard itself."""

from mmlit.training.trackers.tensorboard import TensorBoardTracker


def accumulated(directory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory))
    found.Reload()
    return found


def test_curves_options_and_pictures(tracked, picture):
    run = tracked()
    tracker = TensorBoardTracker(run=run)
    tracker.log_hyperparams(run.parameters)
    for step in range(3):
        tracker.log_metrics({"val/rsum": 10.0 * step}, step)
    tracker.finalize("success")  # Lightning's, after the fit
    tracker.log_metrics({"test/rsum": 5.0}, 3)
    tracker.log_pictures({"test/attention": picture}, 3)
    tracker.close(False)
    found = accumulated(run.directory)
    assert [(event.step, event.value) for event in found.Scalars("val/rsum")] == [(0, 0.0), (1, 10.0), (2, 20.0)]
    assert [(event.step, event.value) for event in found.Scalars("test/rsum")] == [(3, 5.0)]
    assert "hp_metric" not in found.Tags()["scalars"]
    (image,) = found.Images("test/attention")
    assert (image.step, image.width, image.height) == (3, 40, 30)
    assert "_hparams_/session_start_info" in found.summary_metadata
    assert len(list(run.directory.glob("events.*"))) == 1


def test_a_run_that_begins_anew_keeps_nothing(tracked):
    for _ in range(2):
        tracker = TensorBoardTracker(run=tracked())
        tracker.log_metrics({"train/loss": 1.0}, 0)
        tracker.close(True)
    assert len(accumulated(tracked().directory).Scalars("train/loss")) == 1


def test_a_run_that_goes_on_has_every_step_once(tracked):
    """Trap 28."""
    killed = TensorBoardTracker(run=tracked())
    for step in range(7):
        killed.log_metrics({"train/loss": float(step)}, step)
    killed.save()
    resumed = TensorBoardTracker(run=tracked(resumed_step=4))
    for step in range(4, 9):
        resumed.log_metrics({"train/loss": float(step)}, step)
    resumed.close(False)
    found = accumulated(tracked().directory).Scalars("train/loss")
    assert [(event.step, event.value) for event in found] == [(step, float(step)) for step in range(9)]
