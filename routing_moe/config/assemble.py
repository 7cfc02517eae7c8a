"""The flags of `routing-moe assemble`."""

from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.choices import EXPERT_KINDS
from routing_moe.config.flags import REQUIRED, SEED, Command, group

EXPERTS = group("experts")
OUTPUT = group("what is written")
ADAPTER_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"  # of an adapter of peft
BASE, MEAN = "base", "mean"  # values of --embeddings besides the names of experts


# fmt: off
@dataclass(frozen=True, kw_only=True)
class AssembleSettings(Command):
    program = "routing-moe assemble"
    usage = "--experts NAME=PLACE NAME=PLACE ... --base PLACE --output_dir FOLDER [flags, see --help]"

    experts: tuple[str, ...] = EXPERTS(REQUIRED, "tasks and their models: an adapter of peft (its folder; needs the extra: pip install .[peft]), or a fine-tuned plain BART (a folder, a hub name, a file of weights, a run with one expert)", metavar="NAME=PLACE")
    base: str = EXPERTS(REQUIRED, "plain BART that they were made from: a folder, a hub name or a run with one expert; its tokenizer and generation settings are those of the mixture", metavar="PLACE")
    expert_kind: str | None = EXPERTS(None, "what an expert is. lora: a low-rank update of the base, of adapters only; layer: complete layers, to which adapters are merged (default: lora if all are adapters, else layer)", choices=EXPERT_KINDS)
    embeddings: str = EXPERTS(BASE, "with experts of kind layer: the embeddings and norms outside the layers, which all share. base: of --base; mean: of all models; NAME: of that model", metavar="{base,mean,NAME}")
    train_dir: str | None = EXPERTS(None, "gym with train files of all the tasks, whose texts find the nearest expert of other texts (answer --like)")
    seed: int = EXPERTS(42, "seed of the random part of adapters of lower rank than others, which has no effect until it is trained", range=SEED)
    output_dir: Path = OUTPUT(REQUIRED, "new folder of the checkpoint")
# fmt: on

    @property
    def places(self) -> dict[str, str]:
        """{name: place} of the experts."""
        return {name: place for name, _, place in (expert.partition("=") for expert in self.experts)}
