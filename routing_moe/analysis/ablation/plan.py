"""Plans an ablation: the named sets of experts, and the top experts of features."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pandas as pd

from dataloader.errors import InputError
from routing_moe.analysis.ablation.checks import AblationInputs, testable
from routing_moe.analysis.ablation.expert_sets import ExpertSet, experts_named
from routing_moe.analysis.ablation.job import AblationJob
from routing_moe.analysis.ablation.model import NothingToAblate
from routing_moe.analysis.correlation import correlate, top_experts
from routing_moe.analysis.features import Features
from routing_moe.analysis.saved_routes import Routes, routes_of_model
from routing_moe.config.ablate import AblationSettings

log = logging.getLogger("routing_moe")

NO_FEATURE = (
    "no feature holds for at least three tasks, does not for three, and correlates with --top experts"
)


@dataclass(frozen=True, eq=False)
class Plan:
    """Sets of experts to ablate; `sets` has each of them once."""

    named: list[ExpertSet]
    by_feature: dict[str, ExpertSet]
    top_experts: pd.DataFrame  # layer, expert, feature, r of those in by_feature

    @property
    def sets(self) -> list[ExpertSet]:
        return list(dict.fromkeys([*self.named, *self.by_feature.values()]))


# ---------------------------------------------------------------------------- the plan


def make_plan(settings: AblationSettings, inputs: AblationInputs, job: AblationJob) -> Plan:
    """Returns the sets of experts that flags select, for the routes of the job's model. Raises InputError."""
    config = job.evaluator.model.config
    named = {("all",): job.all_experts(), ("none",): []}.get(settings.experts)
    if named is None:
        named = list(dict.fromkeys(experts_named(word, config) for word in settings.experts))
    if not settings.features:
        return Plan(named, {}, pd.DataFrame())
    routes = routes_of_model(job.evaluator.model, inputs.tasks, settings.routes)
    top = top_of_features(settings, inputs.features, routes)
    if not top:
        if not named:
            raise NothingToAblate(f"--features all: {NO_FEATURE}")
        log.info("note: --features all: %s; only --experts are ablated", NO_FEATURE)
        return Plan(named, {}, pd.DataFrame())
    rows = dict(zip(routes.layers, config.routed_rows, strict=True))
    chosen = {
        name: tuple(sorted((rows[row.layer], int(row.expert)) for row in experts.itertuples()))
        for name, experts in top.items()
    }
    return Plan(named, chosen, pd.concat(top.values(), ignore_index=True))


def top_of_features(
    settings: AblationSettings, features: Features, routes: Routes
) -> dict[str, pd.DataFrame]:
    """Returns {feature: its --top experts}; with --features all, features with fewer are left out.

    Raises InputError if a named feature has fewer, or if the model has too few experts for any feature.
    """
    table, most = correlate(routes, features, 0), len(routes.layers) * (routes.experts - 1)
    every = settings.features == ("all",)
    names = testable(features) if every else list(settings.features)
    top = {name: strongest(table, name, settings.top, routes.experts) for name in names}
    short = [name for name, experts in top.items() if len(experts) < settings.top]
    if short and (not every or settings.top > most):
        count = len(top[short[0]])
        few = (
            f"only {count} experts correlate with {short[0]} and can be ablated without emptying a layer; "
            f"give {count} or less"
        )
        none = f"no expert correlates with {short[0]}; do all tasks have the same route?"
        raise InputError(f"--top {settings.top}: {few if count else none}")
    if short:
        log.info("left out, fewer than %d experts correlate with: %s", settings.top, ", ".join(short))
    return {name: experts for name, experts in top.items() if name not in short}


def strongest(table: pd.DataFrame, feature: str, count: int, per_layer: int) -> pd.DataFrame:
    """Returns the `count` experts most correlated with the feature; every layer keeps an expert."""
    ranked = top_experts(table, len(table), [feature])
    ranked = ranked[ranked.groupby("layer", observed=True).cumcount() < per_layer - 1].head(count)
    return ranked[["layer", "expert", "feature", "r", "tasks", "with_feature"]]
