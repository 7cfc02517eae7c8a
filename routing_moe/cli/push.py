"""Share a run on the Hugging Face hub: its best checkpoint, scores, routes and a model card.

    routing-moe push models/moe owner/name --dry_run shared/moe     write the folder only
    routing-moe push models/moe owner/name --private --license apache-2.0

Uploading needs a token that may write: `hf auth login`, or HF_TOKEN. Only the files and settings that
docs/sharing.md lists are sent, and of paths the last part. Others use the name in place of a run folder:
--checkpoint owner/name.
"""

import tempfile
from pathlib import Path

from dataloader.errors import InputError, problem_context
from routing_moe.checkpoints.find import find_mixture
from routing_moe.config.assemble import PushSettings
from routing_moe.config.console import run_command
from routing_moe.io.files import new_folder_problems, replacing_directory
from routing_moe.io.hub import push_problems, upload


def main(argv: list[str] | None = None) -> int:
    return run_command(run, PushSettings, argv, __doc__)


def run(settings: PushSettings) -> None:
    uploads = settings.dry_run is None
    problems = push_problems(settings.name, uploads)
    if problems := problems or ([] if uploads else new_folder_problems("dry_run", settings.dry_run)):
        raise InputError(problems[0])
    mixture = find_mixture(settings.run, settings.checkpoint_name, "checkpoint_name")
    from routing_moe.report.shared_run import SHARED, write_shared_run  # takes seconds

    with tempfile.TemporaryDirectory() if uploads else replacing_directory(settings.dry_run) as folder:
        write_shared_run(mixture, settings.name, settings.license, Path(folder))
        if uploads:
            print(f"uploading to {settings.name}")
            with problem_context(f"{settings.name}: ", "; nothing was published"):
                print(upload(folder, settings.name, settings.private, SHARED))
    if not uploads:
        print(f"{settings.dry_run}: nothing was uploaded")
