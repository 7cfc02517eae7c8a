"""The flags of `routing-moe merge`."""

from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.flags import NOT_NEGATIVE, REQUIRED, SEED, group
from routing_moe.config.plugins import PluginFlags
from routing_moe.config.shared import BART_BASE

ROUTES = group("routes")
EXPERTS = group("experts")
OUTPUT = group("what is written")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class MergeSettings(PluginFlags):
    program = "routing-moe merge"
    usage = "--routes_from RUN --output_dir FOLDER [flags, see --help]"

    routes_from: str = ROUTES(REQUIRED, "a run (of this or the published code), a checkpoint of this code, or a hub name owner/name[@revision]")
    routes_checkpoint_name: str | None = ROUTES(None, "which checkpoint of a run (default: best)")
    model: str | None = EXPERTS(None, f"plain model: a hub name or a folder (default: that of the run, else {BART_BASE})")
    vanilla_checkpoint: str | None = EXPERTS(None, "weights instead of those of --model: a file, a folder, a run with one expert, or a hub name")
    init_eps: float = EXPERTS(1e-8, "standard deviation of the noise added to each copy", range=NOT_NEGATIVE)
    seed: int = EXPERTS(42, "seed of the noise", range=SEED)
    output_dir: str = OUTPUT(REQUIRED, "run folder of stage 2")
    checkpoint_name: str = OUTPUT("init", "name of the checkpoint's folder in --output_dir")
    keep_existing: bool = OUTPUT(False, "succeed without writing if the checkpoint exists and is made from the same files")
# fmt: on

    @property
    def target(self) -> Path:
        return Path(self.output_dir) / self.checkpoint_name
