"""The flags of `routing-moe average`."""

from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.flags import REQUIRED, Command, group

MODELS = group("models")
OUTPUT = group("what is written")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class AverageSettings(Command):
    program = "routing-moe average"
    usage = "--runs PLACE [PLACE ...] --output_dir FOLDER [flags, see --help]"

    runs: tuple[str, ...] = MODELS(REQUIRED, "runs, checkpoints, saved plain BARTs or hub names, of equal size and vocabulary; a mixture counts as the mean of its experts", metavar="PLACE")
    checkpoint_name: str | None = MODELS(None, "which checkpoint of each run (default: best)")
    output_dir: Path = OUTPUT(REQUIRED, "new folder of the checkpoint, a BART of one expert")
# fmt: on
