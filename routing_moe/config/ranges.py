"""Ranges of the numbers among the flags."""

import math
from dataclasses import fields

AT_LEAST_ONE = (
    "train_batch_size",
    "predict_batch_size",
    "gradient_accumulation_steps",
    "total_steps",
    "eval_period",
    "save_period",
    "num_beams",
    "random_eval_draws",
    "task_level_random_n",
    "wait_step",
    "vector_steps",
    "num_workers",
    "max_examples",
    "bottleneck",
)
POSITIVE = (
    "predict_temperature",
    "initial_tau",
    "minimum_tau",
    "max_grad_norm",
    "adam_epsilon",
    "num_train_epochs",
    "sigma",
)
NOT_NEGATIVE = (
    "anneal_rate",
    "learning_rate",
    "router_lr",
    "task_model_lr",
    "weight_decay",
    "init_eps",
    "expert_regularization",
    "alternate_every",
    "max_tokens_per_micro_batch",
    "checkpoint_period",
    "no_eval_until",
    "warmup_steps",
    "seed",
)
INFINITY_HAS_A_MEANING = {"max_grad_norm"}  # no clipping
PROBABILITY = ("exploration_epsilon", "warmup_ratio")
RANGES = (
    (AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
    (POSITIVE, lambda value: value > 0, "greater than 0"),
    (NOT_NEGATIVE, lambda value: value >= 0, "0 or greater"),
    (PROBABILITY, lambda value: 0 <= value <= 1, "from 0 to 1"),
)


def range_faults(settings) -> list[str]:
    """Numbers out of their range among the fields that a settings dataclass has, named as typed."""
    faults, known = [], {field.name for field in fields(settings)}
    for names, holds, must_be in RANGES:
        for name in names:
            value = getattr(settings, name) if name in known else None
            if value is not None and not holds(value):  # a NaN fails every rule
                faults.append(f"--{name} is {value}; it must be {must_be}")
    faults += [
        f"--{name} is infinite; it must be a number"
        for name in sorted(known - INFINITY_HAS_A_MEANING)
        if getattr(settings, name) in (math.inf, -math.inf)
    ]
    if getattr(settings, "seed", 0) >= 2**32:
        faults.append(f"--seed is {settings.seed}; it must be below 2**32")
    return faults
