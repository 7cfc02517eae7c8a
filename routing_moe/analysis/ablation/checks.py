"""Checks of an ablation before torch is imported; all errors are reported at once."""

from dataclasses import dataclass

from dataloader.errors import InputError, Problems, did_you_mean
from routing_moe.analysis.ablation.expert_sets import experts_named
from routing_moe.analysis.correlation import worth_testing
from routing_moe.analysis.features import Features, features_of
from routing_moe.checkpoints.find import mixture_to_score
from routing_moe.config.ablate import AblationSettings
from routing_moe.config.flags import flag_problems
from routing_moe.io.files import unwritable
from routing_moe.training.checks import Inputs, check_inputs


@dataclass(frozen=True, eq=False)
class AblationInputs:
    """The checked inputs of an ablation."""

    run: Inputs
    tasks: list[str]  # in the order of the ontology
    features: Features


def check_ablation(settings: AblationSettings) -> AblationInputs:
    """Reads and checks all inputs. Raises one InputError with all errors."""
    prediction = settings.prediction
    problems = Problems(flag_problems(settings) + _number_problems(settings))
    if problem := unwritable(settings.output_dir):
        problems.append(f"--output_dir {problem}")
    mixture = problems.of(mixture_to_score, prediction.start)
    inputs = problems.of(check_inputs, prediction) if mixture else None
    if not inputs:
        raise InputError(problems)
    for word in settings.experts if set(settings.experts) - {"all", "none"} else ():
        problems.of(experts_named, word, mixture.config)
    tasks = inputs.ontology.order(inputs.split.section(prediction.predict_split))
    flag = "feature_file" if settings.feature_file else None
    features = problems.of(
        features_of, tasks, inputs.ontology, prediction.train_dir, settings.feature_file, flag=flag
    )
    if features:
        problems += _feature_problems(settings, features)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return AblationInputs(inputs, tasks, features)


def _number_problems(settings: AblationSettings) -> list[str]:
    problems = []
    if len(settings.experts) > 1 and {"all", "none"} & set(settings.experts):
        problems.append(f"--experts {' '.join(settings.experts)}: give all or none alone")
    if settings.experts == ("none",) and not settings.features:
        problems.append("--experts none: nothing would be ablated; give --features")
    return problems


def _feature_problems(settings: AblationSettings, features: Features) -> list[str]:
    known, problems = testable(features), []
    if "all" in settings.features:
        alone = settings.features == ("all",)
        return [] if alone else [f"--features {' '.join(settings.features)}: give all alone"]
    for name in settings.features:
        if name not in features.names:
            guess = did_you_mean(name, [*known, "all"])
            problems.append(f"--features {name}: no such feature{guess} (there are {', '.join(known)})")
        elif name not in known:
            binary = "must hold for at least three tasks, and not for three others"
            reason = binary if features.is_binary(name) else "has too few different values"
            problems.append(f"--features {name} {reason}")
    return problems


def testable(features: Features) -> list[str]:
    return [name for name in features.names if worth_testing(features, name)]
