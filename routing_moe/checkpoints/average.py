"""Averages the weights of models of equal size into one BART.

Of runs with other seeds from the same start this is a model soup (Wortsman et al. 2022, arXiv 2203.05482). A
mixture counts as the mean of its experts' parameters, as in MHR-mu (Caccia et al. 2022, arXiv 2211.03831).
`averaged.json` describes the inputs.
"""

from collections.abc import Mapping

from dataloader.checksums import sha256
from dataloader.errors import InputError, Problems, problem_context
from routing_moe.checkpoints.assemble import made_of, size_problems, text_notes, vocabulary
from routing_moe.checkpoints.find import SavedBart, SavedMixture, find_model
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.average import AverageSettings
from routing_moe.config.flags import flag_problems
from routing_moe.io.files import new_folder_problems

AVERAGED_FILE = "averaged.json"
Sources = Mapping[str, SavedBart | SavedMixture]  # {place: model}


def check_average(settings: AverageSettings) -> Sources:
    """Returns the models, after all checks. Raises one InputError with all problems."""
    problems = Problems(flag_problems(settings))
    problems += new_folder_problems("output_dir", settings.output_dir)
    if len(set(settings.runs)) < len(settings.runs):
        problems.append(f"--runs names a model twice: {' '.join(settings.runs)}")
    sources = {
        place: problems.of(find_model, place, settings.checkpoint_name, flag="runs")
        for place in settings.runs
    }
    if problems:
        raise InputError(problems)
    with problem_context("--runs "):
        first, *others = sources.values()
        config, words = first.config, vocabulary(first)
        if different := [line for one in others for line in size_problems(one, config, words, first.place)]:
            raise InputError(different)
    return sources


def average(sources: Sources):
    """Returns (a BART of one expert with the mean of the models' weights, notes for the user)."""
    import torch  # takes seconds

    from routing_moe.model.modeling import RoutingBartForConditionalGeneration

    mean, trained = {}, set()
    for i, (place, source) in enumerate(sources.items()):  # one model at a time is in memory
        with problem_context(f"--runs {place}: "):
            model = source.load()
        config = model.config
        if not config.has_lora:  # whose parameters are mixed anyway
            config.expert_mixing = "parameters"
        bart = model.to_bart(torch.full((config.num_layers, config.num_experts), 1 / config.num_experts))
        own = bart.state_dict()
        mean = {name: mean.get(name, tensor).lerp(tensor, 1 / (i + 1)) for name, tensor in own.items()}
        trained |= set(config.trained_tasks)
    bart.load_state_dict(mean)
    fields = dict(label_smoothing=config.label_smoothing, task_names=sorted(trained))
    averaged = RoutingBartForConditionalGeneration.from_bart(
        bart, 1, 0.0, trained_tasks=sorted(trained), **fields
    )
    return averaged, text_notes(averaged, sources)


def write_averaged(settings: AverageSettings, sources: Sources, model, command: list[str]) -> None:
    """Writes the checkpoint with `averaged.json`, atomically. command: as for `describe_run`."""
    place = next(iter(sources.values())).place
    with problem_context("--runs "):
        tokenizer = load_tokenizer(place, model.config.vocab_size)
    checksums = {name: {file.name: sha256(file) for file in one.files()} for name, one in sources.items()}
    keep = {AVERAGED_FILE: made_of(settings, command, checksums)}
    save_checkpoint(model, tokenizer, settings.output_dir, keep=keep)
