"""Extractors of task vectors with a BART, which load it once for all tasks; their base classes."""

from collections.abc import Sequence

import numpy as np

from dataloader.encoding import EncodedExamples, encode
from dataloader.gym import Example
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.evaluation.text_vectors import bare_inputs, encoder_states, text_vectors
from routing_moe.finetuning.starting_model import plain_of
from routing_moe.finetuning.trial import Weights
from routing_moe.io.accelerator import command_device, make_accelerator
from routing_moe.optim.step import Stepper
from task.task_emb.settings import GymSettings, TrainingSettings

UPDATES = "updates"  # --weights: the low-rank experts
MAX_DIMENSIONS = 2**25  # of a vector, 128 MB; the main process holds the vectors of all tasks in memory


class BartExtractor:
    """A BART (plain, or a mixture) and its tokenizer, on the device of the process."""

    def __init__(self, settings: GymSettings):
        self.settings, self.source = settings, settings.source()
        saved = settings.found_model()
        self.model = saved.load().to(command_device()).eval()
        self.tokenizer = load_tokenizer(settings.tokenizer_place(saved), self.model.config.vocab_size)

    def encoded(self, task: str) -> EncodedExamples:
        """Returns the encoded examples of a task (or sample).

        Inputs start with the task's name only with --task_names, and with [task] only with --hide_task_names:
        by default, vectors describe the data alone.
        """
        examples, text_format = self.source.of(task), self.settings.text_format
        if not (self.settings.task_names or text_format.hide_task_names):
            text_format = bare_inputs(text_format)
        return encode(examples, self.tokenizer, text_format, {examples[0].task: 0})


class TextExtractor(BartExtractor):
    def vector_of(self, task: str) -> np.ndarray:
        return pooled_states(self.model, self.tokenizer, self.source.of(task), self.settings)


class TrainingExtractor(BartExtractor):
    """Fine-tunes the model on one task at a time, each time from the same initial weights."""

    settings: TrainingSettings

    def __init__(self, settings: TrainingSettings):
        super().__init__(settings)
        # One expert: all weights of the BART that it makes are trained, unless the expert itself is.
        if self.model.config.has_lora and getattr(settings, "weights", None) != UPDATES:
            self.model = plain_of(self.model).to(self.model.device).eval()

    def save_initial_weights(self) -> None:
        """Saves the weights that training starts from. Call it after parameters are frozen or added."""
        self.initial = Weights(self.model)

    def train_on(self, task: str, examples: EncodedExamples) -> None:
        """Fine-tunes on the examples from the initial weights; leaves the model in eval mode.

        The result does not depend on the tasks before: every step is a function of the seed. Raises
        TrainingDiverged.
        """
        self.initial.put_back()
        self.model.zero_grad(set_to_none=True)  # gradients of a task that failed
        self.model.config.task_names = [task]  # for error messages
        # A new accelerator per task, because it keeps its loss scaler and its optimizers.
        accelerator = make_accelerator(self.settings.mixed_precision)
        stepper = Stepper(self.model, examples, self.settings.of_training, accelerator)
        for step in range(self.settings.total_steps):
            stepper.step(step)
        self.model.eval()


class FinetunedTextExtractor(TrainingExtractor):
    def __init__(self, settings: TrainingSettings):
        super().__init__(settings)
        self.save_initial_weights()

    def vector_of(self, task: str) -> np.ndarray:
        self.train_on(task, self.encoded(task))
        return pooled_states(self.model, self.tokenizer, self.source.of(task), self.settings)


def pooled_states(model, tokenizer, examples: Sequence[Example], settings) -> np.ndarray:
    """Returns the text vector (D,) of one task, given its examples."""
    inputs = {examples[0].task: [example.input for example in examples]}
    (vector_D,) = text_vectors(
        encoder_states(model),
        tokenizer,
        inputs,
        settings.text_format,
        settings.max_tokens_per_micro_batch,
        quiet=True,
        pooling=settings.pooling,
        task_names=settings.task_names,
    )
    return vector_D
