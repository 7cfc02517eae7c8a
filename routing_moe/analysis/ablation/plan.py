"""Plans an ablation: checks flags, finds the top experts of features, and matches other experts to them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd
import torch

from dataloader.errors import Faults, InputError, did_you_mean, in_short, too_small
from routing_moe.analysis.ablation.job import AblationJob, ExpertSet, places_of
from routing_moe.analysis.ablation.matching import TOLERANCE, matched_sets
from routing_moe.analysis.ablation.model import NothingToSwitchOff
from routing_moe.analysis.correlation import correlate, top_experts, worth_testing
from routing_moe.analysis.features import Features, features_of
from routing_moe.analysis.saved_routes import Routes, chosen_experts, layer_names
from routing_moe.checkpoints.find import find_mixture
from routing_moe.config.settings import Settings
from routing_moe.io.files import unwritable
from routing_moe.training.checks import Inputs, check_inputs

log = logging.getLogger("routing_moe")

NO_FEATURE = "none is had, and lacked, by at least three tasks and goes with --top experts"


@dataclass(frozen=True)
class AblationSettings:
    """The command's flags; `prediction`: what decides scores, as of `train --do_predict`."""

    prediction: Settings
    output_dir: Path
    experts: tuple[str, ...]
    features: tuple[str, ...]
    top: int
    random_draws: int
    feature_file: Path | None
    routes: str
    part: str
    max_examples: int | None
    dry_run: bool
    seed: int


@dataclass(frozen=True, eq=False)
class AblationInputs:
    """What the flags name, found to be sound."""

    run: Inputs
    tasks: list[str]  # in the ontology's order
    features: Features


@dataclass(frozen=True, eq=False)
class Plan:
    """Sets of experts to switch off, each once in `sets`."""

    named: list[ExpertSet]
    by_feature: dict[str, ExpertSet]
    random: dict[str, list[ExpertSet]]  # {feature: matched sets}
    top_experts: pd.DataFrame  # layer, expert, feature, r of those in by_feature

    @property
    def sets(self) -> list[ExpertSet]:
        return list(dict.fromkeys([*self.named, *self.by_feature.values(), *chain(*self.random.values())]))


def check_ablation(settings: AblationSettings) -> AblationInputs:
    """Opens and checks all that the flags name. Raises one InputError with every fault."""
    prediction = settings.prediction
    faults = Faults(_number_faults(settings))
    if fault := unwritable(settings.output_dir):
        faults.append(f"--output_dir {fault}")
    mixture = faults.of(find_mixture, prediction.output_dir, prediction.checkpoint_name, "checkpoint_name")
    inputs = faults.of(check_inputs, prediction) if mixture else None
    if mixture:
        for word in settings.experts if set(settings.experts) - {"all", "none"} else ():
            faults.of(experts_named, word, mixture.config)
    if not inputs:
        raise InputError(faults)
    tasks = inputs.ontology.order(inputs.split.section(prediction.predict_split))
    flag = "feature_file" if settings.feature_file else None
    features = faults.of(
        features_of, tasks, inputs.ontology, prediction.train_dir, settings.feature_file, flag=flag
    )
    if features:
        faults += _feature_faults(settings, features)
    if faults:
        raise InputError(dict.fromkeys(faults))
    return AblationInputs(inputs, tasks, features)


def _number_faults(settings: AblationSettings) -> list[str]:
    faults = too_small(settings, {"top": 1, "random_draws": 0, "max_examples": 1, "seed": 0})
    if len(settings.experts) > 1 and {"all", "none"} & set(settings.experts):
        faults.append(f"--experts {' '.join(settings.experts)}: all and none stand alone")
    if settings.experts == ("none",) and not settings.features:
        faults.append("--experts none: nothing would be switched off; name some --features")
    return faults


def _feature_faults(settings: AblationSettings, features: Features) -> list[str]:
    known = testable(features)
    if settings.features == ("all",):
        return []
    faults = []
    if "all" in settings.features:
        return [f"--features {' '.join(settings.features)}: all stands alone"]
    for name in settings.features:
        if name in features.names and name not in known:
            binary = features.is_binary(name)
            why = (
                "fewer than three tasks have, or lack, it" if binary else "it is a number that hardly varies"
            )
            faults.append(f"--features {name}: {why}")
        elif name not in features.names:
            guess = did_you_mean(name, [*known, "all"])
            faults.append(f"--features {name}: no such feature{guess} (there are {', '.join(known)})")
    return faults


def testable(features: Features) -> list[str]:
    return [name for name in features.names if worth_testing(features, name)]


def experts_named(word: str, config) -> ExpertSet:
    """The set that `enc0.1+dec2.0` stands for. Raises InputError if the model has no such experts."""
    rows = dict(zip(layer_names(config.encoder_layers, config.routed_rows), config.routed_rows, strict=True))
    try:
        places = places_of(word)
    except ValueError as error:
        raise InputError(f"--experts {word}: {error}") from None
    for layer, expert in places:
        if layer not in rows or expert >= config.num_experts:
            raise InputError(
                f"--experts {word}: no expert {expert} of {layer}; there are 0 to {config.num_experts - 1} "
                f"of {', '.join(rows)}"
            )
    experts = sorted({(rows[layer], expert) for layer, expert in places})
    if not leaves_every_layer(experts, config.num_experts):
        raise InputError(f"--experts {word}: a layer would have no expert left")
    return tuple(experts)


# ---------------------------------------------------------------------------- the plan


def make_plan(settings: AblationSettings, inputs: AblationInputs, job: AblationJob) -> Plan:
    """The sets that the flags stand for, by the routes of the job's model. Raises InputError."""
    config = job.bench.model.config
    named = {("all",): job.all_experts(), ("none",): []}.get(settings.experts)
    if named is None:
        named = list(dict.fromkeys(experts_named(word, config) for word in settings.experts))
    if not settings.features:
        return Plan(named, {}, {}, pd.DataFrame())
    routes = model_routes(job.bench.model, inputs.tasks, settings.routes)
    top = top_of_features(settings, inputs.features, routes)
    if not top:
        if not named:
            raise NothingToSwitchOff(f"--features all: {NO_FEATURE}")
        log.info("note: --features all: %s; experts alone are switched off", NO_FEATURE)
        return Plan(named, {}, {}, pd.DataFrame())
    rows = dict(zip(routes.layers, config.routed_rows, strict=True))
    chosen = {
        name: tuple(sorted((rows[row.layer], int(row.expert)) for row in own.itertuples()))
        for name, own in top.items()
    }
    drawn = matched_sets(job, chosen, inputs.features, settings.random_draws, settings.seed)
    _log_few_matches(drawn, settings)
    return Plan(named, chosen, drawn, pd.concat(top.values(), ignore_index=True))


def top_of_features(
    settings: AblationSettings, features: Features, routes: Routes
) -> dict[str, pd.DataFrame]:
    """{feature: its top experts}; of all features those that have so many.

    Raises InputError if a named one has fewer than --top of them, or none could have.
    """
    table, most = correlate(routes, features, 0), len(routes.layers) * (routes.experts - 1)
    every = settings.features == ("all",)
    names = testable(features) if every else list(settings.features)
    top = {name: strongest(table, name, settings.top, routes.experts) for name in names}
    short = [name for name, own in top.items() if len(own) < settings.top]
    if short and (not every or settings.top > most):
        count = len(top[short[0]])
        few = f"only {count} experts go with {short[0]} and leave each layer one; give {count} or fewer"
        none = f"no expert's weight goes with {short[0]}; do all tasks have the same route?"
        raise InputError(f"--top {settings.top}: {few if count else none}")
    if short:
        log.info("left out, as fewer than %d experts go with them: %s", settings.top, ", ".join(short))
    return {name: own for name, own in top.items() if name not in short}


@torch.no_grad()
def model_routes(model, tasks: Sequence[str], kind: str) -> Routes:
    """The routes of a model in memory, as `route_data.load_routes` gives those on disk."""
    config = model.config
    values_NLE = model.expected_routes(list(tasks), config.router_temperature).double().cpu().numpy()
    values_NLE = values_NLE[:, config.routed_rows]
    if kind == "chosen":
        values_NLE = chosen_experts(values_NLE)
    return Routes("", tuple(tasks), layer_names(config.encoder_layers, config.routed_rows), values_NLE)


def strongest(table: pd.DataFrame, feature: str, count: int, per_layer: int) -> pd.DataFrame:
    """The `count` experts whose weight goes most with the feature, without any that would empty a layer."""
    kept, layers = [], []
    for row in top_experts(table, len(table), [feature]).itertuples():
        if len(kept) < count and layers.count(row.layer) < per_layer - 1:
            kept.append(row)
            layers.append(row.layer)
    shown = pd.DataFrame(kept, columns=["Index", *table.columns])
    return shown[["layer", "expert", "feature", "r", "tasks", "with_feature"]]


def _log_few_matches(drawn: dict[str, list[ExpertSet]], settings: AblationSettings) -> None:
    few = [f"{name} ({len(own)})" for name, own in drawn.items() if len(own) < settings.random_draws]
    if few:
        log.info(
            "note: fewer than %d sets of %d other experts are used as much, within %g%% of the weight, by "
            "the tasks with %s", settings.random_draws, settings.top, 100 * TOLERANCE, in_short(few),
        )  # fmt: skip


def leaves_every_layer(experts: Sequence[tuple[int, int]], per_layer: int) -> bool:
    """Whether each layer keeps an expert."""
    rows = [row for row, _ in set(experts)]
    return all(rows.count(row) < per_layer for row in set(rows))
