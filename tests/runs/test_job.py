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


def test_the_options_of_a_part_that_nobody_chose_are_refused():
    with pytest.raises(ValueError, match=r"towers\.patch_dropout has options, but is not chosen: choose it with"):
        job("experiment=flickr8k_finetuned", "+towers.patch_dropout.rate=0.5")
