"""What the methods with a BART share: a model loaded once, a task's examples, fine-tuning on them."""

from accelerate import PartialState

from dataloader.encoding import EncodedExamples, encode
from routing_moe.checkpoints.start import load_tokenizer
from routing_moe.evaluation.text_vectors import bare_inputs
from routing_moe.finetuning.trial import Weights
from routing_moe.io.accelerator import make_accelerator
from routing_moe.optim.step import Stepper
from task.task_emb.settings import GymSettings, TrainingSettings


class BartBench:
    """A BART (a routing BART of one expert, or a mixture) and its tokenizer, on the process's device."""

    def __init__(self, settings: GymSettings):
        self.settings, self.source = settings, settings.source()
        found = settings.found_model()
        self.model = found.load().to(PartialState().device).eval()
        self.tokenizer = load_tokenizer(settings.tokenizer_place(found), self.model.config.vocab_size)

    def encoded(self, task: str) -> EncodedExamples:
        """The encoded examples of a task (or sample): with the task's name in front if the settings say so,
        else without it, so that a vector describes the data alone."""
        examples, text_format = self.source.of(task), self.settings.text_format
        text_format = text_format if self.settings.task_names else bare_inputs(text_format)
        return encode(examples, self.tokenizer, text_format, {examples[0].task: 0})


class TrainingBench(BartBench):
    """Fine-tunes on one task after the other, each from where the model started."""

    settings: TrainingSettings

    def keep_start(self) -> None:
        """To be called once it is known what is trained."""
        self.start = Weights(self.model)

    def train_on(self, task: str, examples: EncodedExamples) -> None:
        """Optimizer steps of the training loop's recipe; the model is in eval mode then.

        Every step follows from the seed alone, so it does not matter which task came before. Raises
        TrainingDiverged.
        """
        self.start.put_back()
        self.model.zero_grad(set_to_none=True)  # a task that failed may have left some
        self.model.config.task_names = [task]  # what an error names
        # A new one each time: its loss scaler and its list of optimizers must not outlive a task.
        accelerator = make_accelerator(self.settings.mixed_precision)
        stepper = Stepper(self.model, examples, self.settings.of_training, accelerator)
        for step in range(self.settings.total_steps):
            stepper.step(step)
        self.model.eval()
