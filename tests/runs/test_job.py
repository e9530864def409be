"""A job as it was asked for: what an experiment sets for parts that the command line took away goes with them."""

import pytest
from hydra import compose, initialize_config_dir

from mmlit.configuration.stored import CONF
from mmlit.run.job import Job, job_of


def job(*overrides: str) -> Job:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return job_of(compose("config", list(overrides), return_hydra_config=True))


def test_what_an_experiment_sets_for_a_part_goes_with_the_part():
    whole = job("experiment=flickr8k_finetuned")
    assert whole.config.callbacks.thawing.image_encoder
    without = job("experiment=flickr8k_finetuned", "callbacks=[last,ema]", "~groups")
    assert set(without.config.callbacks) == {"checkpoint", "ema"}
    assert without.config.callbacks.ema.decay == whole.config.callbacks.ema.decay
    assert "groups" not in without.config


@pytest.mark.parametrize(
    ("taken", "typed", "told"),
    [
        ("callbacks=[last]", "callbacks.ema.decay=0.5", r"callbacks=\[ema\]"),
        ("callbacks=[last,ema]", "callbacks.thawing.image_encoder=[{epoch: 2, last: 3}]", r"callbacks=\[thawing\]"),
        ("~groups", "groups.image_encoder=0.5", r"groups=\.\.\."),
    ],
)
def test_options_typed_for_a_part_that_is_taken_away_are_refused(taken, typed, told):
    with pytest.raises(ValueError, match=rf"{typed.partition('=')[0]}: no such option without {told}"):
        job("experiment=flickr8k_finetuned", taken, typed)


def test_options_of_a_part_that_nobody_chose_are_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text("# @package _global_\ntowers:\n  patch_dropout: {share: 0.5}\n")
    with pytest.raises(
        ValueError, match=r"towers\.patch_dropout has options, but is not chosen: choose it with towers="
    ):
        job("experiment=own", f"hydra.searchpath=[{tmp_path}]")
