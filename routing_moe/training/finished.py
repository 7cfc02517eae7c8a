"""Says whether a run is finished, from its files, so that `--resume` need not load it again."""

from pathlib import Path

from dataloader.errors import Problems
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.find import SavedMixture, checkpoint_to_resume
from routing_moe.config.flags import changed, flags_of
from routing_moe.config.train import TrainSettings
from routing_moe.results.run_cost import read_cost
from routing_moe.results.scores import ScoresFile
from routing_moe.task_choice.texts import TEXTS_FILE
from routing_moe.training.checks import run_folder_problems

# Flags that scores depend on besides those that a prediction inherits or a comparison of runs reports.
OF_SCORES = {"measures", "predict_samples", "text_vectors", "debug"}
NOT_OF_SCORES = {"predict_batch_size", "taskvecs"}  # the vectors are in the checkpoint


def finished(settings: TrainSettings) -> str | None:
    """Returns a line for a resumed run of which nothing is left to do, None if there is something.

    With other settings it is None, too: the checks report them.
    """
    if run_folder_problems(settings) or not is_trained(settings):
        return None
    best = Path(settings.output_dir) / "best"
    if settings.do_predict:
        scores = scores_there(settings)
        return scores and f"{settings.output_dir} is finished: scores in {scores}"
    has_texts = settings.no_text_vectors or (best / TEXTS_FILE).is_file()
    if not has_texts and SavedMixture(best).config.routes_by_task:  # whose reader imports torch
        return None
    return f"{settings.output_dir} is finished: best checkpoint in {best}"


def is_trained(settings: TrainSettings) -> bool:
    """Returns whether a resumed run has its cost.json, which is written after the last step."""
    if checkpoint_to_resume(settings) is None:
        return False
    return Problems().of(read_cost, settings.output_dir) is not None  # a damaged file is written again


def scores_there(settings: TrainSettings) -> Path | None:
    """Returns the file of test scores of the best checkpoint with these settings, None if it is missing."""
    file = ScoresFile(section=settings.predict_split, prefix=settings.prefix)
    described, scores = (Path(settings.output_dir) / path for path in (file.settings_path, file.path))
    saved = (Problems().of(load_json_object, described, "the settings of scores") or {}).get("settings")
    flags = flags_of(settings).items()
    names = OF_SCORES | {name for name, flag in flags if flag.inherited or flag.compared_as == "scoring"}
    values = {name: getattr(settings, name) for name in names - NOT_OF_SCORES}
    same = isinstance(saved, dict) and not changed(values, saved, "")
    return scores if same and scores.is_file() else None
