"""Ablate experts, each alone or the top experts of a feature together; report the drop of every task's score.

    routing-moe ablate models/moe                  every expert, dev files of the train tasks
    routing-moe ablate models/moe --experts none --features skill:negation category:qa --top 3
    accelerate launch --num_processes 4 -m routing_moe.cli.ablate models/moe     the same on several GPUs

Scores are written to RUN/analysis/ablation/sets/ one by one; the same command continues an interrupted one.
At the end tasks.csv, categories.csv, features.csv, ablation.md and pictures are written.
Exit code 3: there is nothing to ablate: the model has no experts, or routes that differ among the examples of
a task, or no feature can be compared.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

from dataloader.errors import InputError
from routing_moe.analysis.features import features_of
from routing_moe.checkpoints.find import mixture_to_score
from routing_moe.config.ablate import AblationSettings, ablation_settings
from routing_moe.config.console import reporting_errors
from routing_moe.config.flags import flag_problems, parse
from routing_moe.io.files import unwritable
from routing_moe.training.checks import check_inputs


def main(argv: list[str] | None = None) -> int:
    values, started = parse(AblationSettings, argv, __doc__), []
    with reporting_errors(lambda: what_is_kept(*started)) as result:
        run(ablation_settings(values), started)
    return result.exit_code


def run(settings: AblationSettings, started: list[Path]) -> None:
    """Ablates experts. started: gets the output folder when work in it starts."""
    if problems := flag_problems(settings):
        raise InputError(problems[0])
    if problem := unwritable(settings.output_dir):
        raise InputError(f"--output_dir {problem}")
    if settings.experts == ("none",) and not settings.features:
        raise InputError("--experts none: nothing would be ablated; give --features")
    prediction = settings.prediction
    mixture_to_score(prediction.start)
    inputs = check_inputs(prediction, writes=False)
    tasks, ontology = inputs.split.section(prediction.predict_split), inputs.ontology
    tasks = ontology.order(tasks)
    features = features_of(tasks, ontology, prediction.train_dir, settings.feature_file)
    # Torch is imported here, after the files were read: it takes seconds.
    from routing_moe.analysis.ablation import experts_of_features, load_ablation, set_of
    from routing_moe.io.accelerator import make_accelerator
    from routing_moe.io.logs import start_logging
    from routing_moe.io.main_process import main_process_lock, on_main
    from routing_moe.io.memory import naming_memory_flags
    from routing_moe.report.ablation_files import write_ablation_files

    accelerator = make_accelerator(prediction.mixed_precision)
    with ExitStack() as at_exit, naming_memory_flags(prediction):
        at_exit.callback(accelerator.end_training)
        start_logging(accelerator.is_main_process)
        ablation = load_ablation(settings, inputs, tasks, accelerator)
        top = experts_of_features(settings, features, ablation) if settings.features else {}
        singles = ablation.singles(settings.experts)
        with main_process_lock(accelerator, settings.output_dir):
            started.append(settings.output_dir)
            ablation.run([*singles, *(set_of(experts, ablation) for experts in top.values())])
            results = (settings, ablation, top, features, ontology)
            on_main(accelerator, lambda: print(write_ablation_files(*results)))


def what_is_kept(folder: Path | None = None) -> str:
    if folder is None:
        return "nothing was started"
    return f"finished scores are kept in {folder}/sets; the same command continues"


if __name__ == "__main__":
    sys.exit(main())
