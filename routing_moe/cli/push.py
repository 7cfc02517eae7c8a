"""Share a run on the Hugging Face hub: its best checkpoint, scores, routes and a model card.

    routing-moe push models/moe owner/name
    routing-moe push models/moe owner/name --private --license apache-2.0
    routing-moe push models/moe owner/name --dry_run shared/moe     write the folder only

Uploading needs a token that may write: `hf auth login`, or HF_TOKEN. Absolute paths, predictions and the
state of training are left out. Others use the name in place of a run folder: --checkpoint owner/name.
"""

import sys
import tempfile
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, Problems, problem_context
from routing_moe.checkpoints.find import find_mixture
from routing_moe.cli.console import run_command
from routing_moe.config.flags import flag_problems
from routing_moe.config.push import PushSettings
from routing_moe.io.files import new_folder_problems, replacing_directory
from routing_moe.io.hub import push_problems, upload


def main(argv: list[str] | None = None) -> int:
    return run_command(run, PushSettings, argv, __doc__)


def run(settings: PushSettings) -> None:
    problems = Problems(
        flag_problems(settings) + push_problems(settings.name, uploads=settings.dry_run is None)
    )
    if settings.dry_run:
        problems += new_folder_problems("dry_run", settings.dry_run)
    mixture = problems.of(find_mixture, settings.run, settings.checkpoint_name, "checkpoint_name")
    if problems:
        raise InputError(problems)
    from routing_moe.report.shared_run import BESIDE, OF_CHECKPOINT, read_shared_run  # takes seconds

    shared = read_shared_run(mixture)
    if settings.dry_run:
        with replacing_directory(settings.dry_run) as folder:
            write(shared, settings, folder)
        print(f"{settings.dry_run}: {described(settings.dry_run)}; nothing was uploaded")
        return
    with tempfile.TemporaryDirectory() as temporary:
        write(shared, settings, folder := Path(temporary))
        print(f"uploading {described(folder)} to {settings.name}")
        with problem_context(f"{settings.name}: ", "; nothing was published"):
            url = upload(folder, settings.name, settings.private, (*OF_CHECKPOINT, *BESIDE))
    print(url)


def write(shared, settings: PushSettings, folder: Path) -> None:
    from routing_moe.report.model_card import model_card
    from routing_moe.report.shared_run import write_shared_run

    write_shared_run(shared, settings, folder)
    write_text(folder / "README.md", str(model_card(shared, settings)))


def described(folder: Path) -> str:
    """Returns "23 files, 9.8 MB"."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
