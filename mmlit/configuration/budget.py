"""How long, how often, on what: what Lightning would tell late, in its own words, or not at all."""

from collections.abc import Mapping
from typing import Any

#: of training: weights are fp32 in each
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
#: callbacks that do nothing without a validation
_WATCHING = {"early_stopping", "generalization_gap"}


def check_trainer(config: Mapping[str, Any]) -> None:
    """Refuses budgets without a step, runs without a reported checkpoint, other precisions, devices without a strategy.

    Raises:
        ValueError: naming the option.
    """
    trainer, rule = config["trainer"], (config.get("callbacks") or {}).get("checkpoint")
    for option in ("max_epochs", "check_val_every_n_epoch"):
        if not (trainer[option] or 0) >= 1:
            raise ValueError(f"trainer.{option} must be >= 1, got {trainer[option]}")
    if rule is None:
        raise ValueError("callbacks must hold best or last: which checkpoint is reported?")
    if str(trainer["precision"]) not in PRECISIONS:
        raise ValueError(f"trainer.precision must be {', '.join(PRECISIONS)}, got {trainer['precision']}")
    every, epochs = trainer["check_val_every_n_epoch"], trainer["max_epochs"]
    if rule["monitor"] and every > epochs:
        raise ValueError(
            f"callbacks=best selects on {rule['monitor']}, which trainer.check_val_every_n_epoch={every} never "
            f"measures within trainer.max_epochs={epochs}; lower it, or take callbacks=last"
        )
    for name in _WATCHING & (config.get("callbacks") or {}).keys():
        if every > epochs:
            raise ValueError(
                f"callbacks: {name} looks at validations, of which trainer.check_val_every_n_epoch={every} makes none "
                f"within trainer.max_epochs={epochs}; lower it, or leave {name} out"
            )
    if trainer["devices"] != 1 and "strategy" not in trainer:
        raise ValueError(f"trainer.devices={trainer['devices']}: several devices need trainer=ddp")
    if trainer.get("num_nodes", 1) != 1 and "strategy" not in trainer:
        raise ValueError(f"trainer.num_nodes={trainer['num_nodes']}: several nodes need trainer=ddp")
