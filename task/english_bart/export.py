"""Write the plain BART of a run with one expert, which transformers loads alone, for --model.

python -m task.english_bart.export --run models/warm_up --output_dir data/warm_bart
"""

import sys

from dataloader.errors import Faults, InputError
from routing_moe.checkpoints.find import find_mixture
from routing_moe.cli.console import run_command
from routing_moe.config.flags import flag_faults
from task.english_bart.settings import ExportSettings
from task.written_folder import is_written, print_written, written_at_once


def main(argv: list[str] | None = None) -> int:
    return run_command(run, ExportSettings, argv, __doc__)


def run(settings: ExportSettings) -> None:
    faults = Faults(flag_faults(settings))
    written = faults.of(is_written, settings)
    found = faults.of(find_mixture, settings.run, settings.checkpoint_name, "checkpoint_name", flag="run")
    if found and found.config.num_experts > 1:
        faults.append(
            f"--run {settings.run} has {found.config.num_experts} experts per layer; name a run with "
            "--num_experts 1, or use model.to_bart(route), which makes a plain BART of a route"
        )
    if faults:
        raise InputError(faults)
    if written:
        return print_written(settings)

    import torch  # these take seconds

    from routing_moe.checkpoints.start import load_tokenizer
    from routing_moe.io.logs import start_logging

    start_logging()
    model = found.load()
    tokenizer = load_tokenizer(found.checkpoint, model.config.vocab_size)
    bart = model.to_bart(torch.ones(model.config.num_layers, 1))
    with written_at_once(settings) as folder:
        bart.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(f"wrote {settings.output_dir}: {bart.num_parameters():,} parameters")


if __name__ == "__main__":
    sys.exit(main())
