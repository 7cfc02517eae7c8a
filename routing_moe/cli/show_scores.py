"""Print a run's scores by category, next to those of baselines. Several runs: routing-moe compare.

    routing-moe show-scores models/moe
    routing-moe show-scores models/moe --predict_split test

Reads the scores of `--do_predict`. Baselines need no model: each task's most frequent training answer
(constant), a random option (chance, mean over the tasks with options), the input (copy). Measures that the
scores have (--measures of training), and data sets with prompts, are shown, too.
"""

from dataloader.errors import InputError
from dataloader.templates import has_templates
from routing_moe.analysis.runs import ontology_of
from routing_moe.config.console import run_command
from routing_moe.config.tables import ShowSettings
from routing_moe.io.hub import folder_of_run
from routing_moe.io.run_folder import settings_of_run
from routing_moe.results.markdown import markdown_table
from routing_moe.results.scores import ScoresFile, category_table, datasets_markdown, read_scores


def main(argv: list[str] | None = None) -> int:
    return run_command(show, ShowSettings, argv, __doc__)


def show(settings: ShowSettings) -> None:
    """Prints the table. Raises InputError."""
    run, scores, section = folder_of_run(settings.run), {}, settings.predict_split
    ontology = ontology_of(run, settings_of_run(run), None)
    for part in ("dev", "test"):
        path = run / ScoresFile(part, section, settings.checkpoint_name, settings.prefix).path
        if not path.is_file():
            raise InputError(f"{path}: not found; write it with --do_predict --predict_split {section}")
        scores[part] = read_scores(path)
    print(markdown_table(category_table(scores, ontology)))
    if has_templates(scores["test"]["task_prefix"]):
        print(f"\n{datasets_markdown(scores)}")
