"""The flags of `routing-moe assemble` and `routing-moe average`."""

from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.flags import REQUIRED, Command, group
from routing_moe.config.plugins import PluginFlags

MODELS, OUTPUT = group("models"), group("what is written")
ASSEMBLED_FILE = "assembled.json"  # what a mixture was made of
ADAPTER_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"  # of an adapter of peft


# fmt: off
@dataclass(frozen=True, kw_only=True)
class AssembleSettings(Command):
    program = "routing-moe assemble"
    usage = "--experts NAME=PLACE NAME=PLACE ... --base PLACE --output_dir FOLDER [flags, see --help]"

    experts: tuple[str, ...] = MODELS(REQUIRED, "tasks and their models: all adapters of peft (folders; needs the extra: pip install .[peft]), or all fine-tuned plain BARTs (a folder, a hub name, a file of weights, a run with one expert)", metavar="NAME=PLACE")
    base: str = MODELS(REQUIRED, "plain model that they were made from: a folder, a hub name or a run with one expert; its embeddings, tokenizer and generation settings are those of the mixture", metavar="PLACE")
    output_dir: Path = OUTPUT(REQUIRED, "new folder of the checkpoint")
    keep_existing: bool = OUTPUT(False, "succeed without writing if the checkpoint exists and is made from the same files")

    @property
    def keeps(self) -> bool:
        """Whether the checkpoint exists and stays."""
        return self.keep_existing and (self.output_dir / ASSEMBLED_FILE).is_file()

    @property
    def places(self) -> dict[str, str]:
        """{name: place} of the experts."""
        return {name: place for name, _, place in (expert.partition("=") for expert in self.experts)}


@dataclass(frozen=True, kw_only=True)
class AverageSettings(PluginFlags):
    program = "routing-moe average"
    usage = "--runs PLACE [PLACE ...] --output_dir FOLDER [flags, see --help]"

    runs: tuple[str, ...] = MODELS(REQUIRED, "runs, checkpoints, saved plain models or hub names, of equal size and vocabulary; a mixture counts as the mean of its experts", metavar="PLACE")
    checkpoint_name: str | None = MODELS(None, "which checkpoint of each run (default: best)")
    output_dir: Path = OUTPUT(REQUIRED, "new folder of the checkpoint, a model of one expert")
# fmt: on
