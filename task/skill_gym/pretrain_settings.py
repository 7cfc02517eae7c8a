"""The flags of `task.skill_gym.pretrain`."""

from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, REQUIRED, SEED, Command, group

OUTPUT = group("output")
TRAINING = group("training")


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(Command):
    """All settings that the weights depend on; they also depend on the library versions."""

    program = "python -m task.skill_gym.pretrain"
    usage = "--output_dir FOLDER [flags, see --help]"

    output_dir: Path = OUTPUT(REQUIRED, "folder to write the model into", on_resume=True)
    seed: int = TRAINING(0, "seed of the text, the noise and the initial weights", range=SEED)
    steps: int = TRAINING(3500, "number of optimizer steps", range=AT_LEAST_1)
    batch_size: int = TRAINING(32, "documents per step", range=AT_LEAST_1)
    learning_rate: float = TRAINING(2e-3, "peak learning rate", range=POSITIVE)
    warmup_steps: int = TRAINING(300, "steps of linear warm-up to the peak learning rate", range=NOT_NEGATIVE)
    d_model: int = TRAINING(128, "hidden size of the model", range=AT_LEAST_1)
    layers: int = TRAINING(2, "number of encoder layers, and of decoder layers", range=AT_LEAST_1)
