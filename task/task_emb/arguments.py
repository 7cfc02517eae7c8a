"""The flags of the commands that make task vectors, with their meaning; defaults are those of the settings."""

import argparse
import dataclasses

from routing_moe.evaluation.text_vectors import POOLINGS
from task.task_emb.fisher_information import PARTS
from task.task_emb.reduction import TRANSFORMS
from task.task_emb.settings import PUBLISHED


def parser_of(program: str, usage: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m task.task_emb.{program}",
        usage=f"%(prog)s {usage} [flags, see --help]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an abbreviated flag would change its meaning when a new one is added
    )


def defaults_of(settings_class) -> dict:
    return {field.name: field.default for field in dataclasses.fields(settings_class)}


def recipe_flags(settings_class) -> str:
    """The flags that --recipe published sets, for the help text."""
    values = dict(settings_class.PUBLISHED_RECIPE)
    flags = ["--task_names"] if values.pop("task_names") else []
    flags += ["all examples"] if values.pop("max_examples") else []
    return ", ".join([*flags, *(f"--{name} {value}" for name, value in values.items())])


# fmt: off
def method_parser(settings_class, usage: str, description: str) -> argparse.ArgumentParser:
    """A parser with the flags of all methods."""
    parser = parser_of(settings_class.method, usage, description)
    add = parser.add_argument_group("tasks and output").add_argument
    add("--output_dir", required=True, help="folder of the vectors; finished vectors are kept")
    add("--tasks", nargs="+", default=None, metavar="TASK", help="names of tasks, and sections of the split such as train (default: all tasks of the split, or without a split all known tasks)")
    add("--custom_tasks_splits", default=None, help="JSON with task lists train, dev, test (default: split.json in --train_dir, if it exists)")
    add("--num_workers", type=int, default=1, help="number of processes that compute tasks in parallel, distributed over the GPUs; on CPUs results are bit-identical for equal OMP_NUM_THREADS (default: 1, in this process)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def random_parser(settings_class, description: str) -> argparse.ArgumentParser:
    parser, default = method_parser(settings_class, "--output_dir FOLDER", description), defaults_of(settings_class)
    add = parser.add_argument_group("random vectors").add_argument
    add("--train_dir", default=None, help="gym folder with the tasks (default: the tasks of the split, or of --tasks)")
    add("--taskvecs_dim", type=int, default=default["taskvecs_dim"], help="dimension (default: %(default)s)")
    add("--sigma", type=float, default=default["sigma"], help="standard deviation (default: %(default)s)")
    add("--seed", type=int, default=default["seed"], help="random seed (default: %(default)s)")
    return parser


def descriptions_parser(settings_class, description: str) -> argparse.ArgumentParser:
    parser = method_parser(settings_class, "--descriptions FILE --output_dir FOLDER", description)
    add = parser.add_argument_group("sentences").add_argument
    add("--descriptions", required=True, help="JSON file: {task: sentence, or list of sentences}")
    add("--encoder", default=defaults_of(settings_class)["encoder"], help="sentence encoder: a folder or a hub name (default: %(default)s)")
    return parser


def gym_parser(settings_class, description: str) -> argparse.ArgumentParser:
    """A parser with the flags of methods that read train files with a BART."""
    parser = method_parser(settings_class, "--train_dir GYM --output_dir FOLDER", description)
    default = defaults_of(settings_class)
    answers = "labelled rows" if settings_class.reads_answers else "unlabelled inputs"
    run = "a run, also of a mixture" if settings_class.takes_mixtures else "a run with one expert"
    add = parser.add_argument_group("data and model").add_argument
    add("--train_dir", required=True, help="gym folder; only train files are read")
    add("--recipe", choices=(PUBLISHED,), default=None, help=f"published: the settings of the published code for all flags that are not given: {recipe_flags(settings_class)} (default: the defaults in this help)")
    add("--model", default=default["model"], help=f"BART: a hub name, a saved folder, or {run} (default: %(default)s)")
    add("--tokenizer", default=None, help="hub name or folder of the tokenizer (default: that of --model)")
    add("--samples", default=default["samples"], help=f"train files to read: first (sample), all (samples), or a seed such as 100. each: one vector per sample from its own rows, with the name of the sample such as boolq_32_100; the task gets that of its first sample. It is for few-shot fine-tuning, which reads the vector of each sample. A vector is computed from {answers} of one sample or, with all, of all samples; scores of unseen tasks are not zero-shot if the rows are labelled (default: %(default)s)")
    add("--max_examples", type=int, default=default["max_examples"], help="maximum number of examples per task, evenly spaced over its train files; vectors are most comparable with equal numbers (default: %(default)s)")
    add("--skip_malformed", action="store_true", help="skip malformed lines of task files instead of stopping")
    add = parser.add_argument_group("texts").add_argument
    add("--max_input_length", type=int, default=default["max_input_length"], help="maximum tokens of an input, including special tokens (default: %(default)s)")
    if settings_class.reads_answers:
        add("--max_output_length", type=int, default=default["max_output_length"], help="maximum tokens of an output, including special tokens (default: %(default)s)")
    add("--do_lowercase", action="store_true", help="lowercase texts")
    add("--append_another_bos", action="store_true", help="put a second <s> before texts")
    add("--task_names", action=argparse.BooleanOptionalAction, default=default["task_names"], help="put the task's name before each input, as in training: ' [task] input' (default: inputs without names)")
    add("--max_tokens_per_micro_batch", type=int, default=default["max_tokens_per_micro_batch"], help="maximum padded tokens per micro-batch; limits the memory of each process of --num_workers (default: %(default)s; 0: no limit)")
    return parser


def training_parser(settings_class, description: str) -> argparse.ArgumentParser:
    """A parser with the flags of methods that train on a task first."""
    parser, default = gym_parser(settings_class, description), defaults_of(settings_class)
    rate = default["learning_rate"] or "1e-3 for adapters, 3e-5 for layers"
    add = parser.add_argument_group("training on the task").add_argument
    add("--total_steps", type=int, default=default["total_steps"], help="optimizer steps (default: %(default)s)")
    add("--learning_rate", type=float, default=default["learning_rate"], help=f"peak learning rate, which decays to 0; 0: weights do not change (default: {rate})")
    add("--train_batch_size", type=int, default=default["train_batch_size"], help="examples per step (default: %(default)s)")
    add("--warmup_ratio", type=float, default=default["warmup_ratio"], help="fraction of the steps for linear warm-up (default: %(default)s)")
    add("--weight_decay", type=float, default=default["weight_decay"], help="decoupled weight decay of matrices (default: %(default)s)")
    add("--adam_epsilon", type=float, default=default["adam_epsilon"], help="AdamW's epsilon (default: %(default)s)")
    add("--max_grad_norm", type=float, default=default["max_grad_norm"], help="clip the norm of the gradient of the summed loss (default: %(default)s)")
    add("--mixed_precision", choices=("no", "bf16", "fp16"), default=default["mixed_precision"], help="precision of matrix products in training; weights stay float32 (default: no)")
    add("--seed", type=int, default=default["seed"], help="seed of batches, dropout and adapters, the same for all tasks (default: %(default)s)")
    return parser


def with_pooling(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    group = parser.add_argument_group("states")
    group.add_argument("--pooling", choices=POOLINGS, default="mean", help="pooling of an input's states: mean over its tokens, or the state at <s> (default: %(default)s)")
    return parser


def fisher_parser(settings_class, description: str) -> argparse.ArgumentParser:
    parser, default = training_parser(settings_class, description), defaults_of(settings_class)
    add = parser.add_argument_group("Fisher information").add_argument
    add("--weights", choices=settings_class.WEIGHTS, default=default["weights"], help="weights to train and to compute Fisher information of: adapters in a frozen BART, or all weights of its layers (default: %(default)s)")
    add("--bottleneck", type=int, default=None, help="hidden size of adapters (default: 16)")
    add("--average_over", choices=PARTS, default=None, help="dimensions of the vector: each weight, or the mean of each output unit, of each weight or bias tensor, or of each layer (default: weight for adapters, unit for layers)")
    return parser


def reduce_parser(description: str = "") -> argparse.ArgumentParser:
    parser = parser_of("reduce", "--taskvecs FOLDER --dim D --output_dir FOLDER", description)
    add = parser.add_argument
    add("--taskvecs", required=True, help="folder of the vectors")
    add("--output_dir", required=True, help="folder to write")
    add("--dim", type=int, default=None, help="number of components, less than the number of tasks to fit on")
    add("--fit_on", nargs="+", default=None, metavar="TASK", help="tasks or sections of the split to fit on; all: all tasks of the split, or of the folder (default: train)")
    add("--custom_tasks_splits", default=None, help="JSON with task lists train, dev, test")
    add("--transform", choices=TRANSFORMS, default=None, help="transform vectors first; unit: to length 1; log: log of each number, for Fisher information, which spans orders of magnitude (default: none)")
    add("--no_standardisation", action="store_true", help="do not scale the input dimensions (default: scale each to variance 1)")
    add("--whiten", action="store_true", help="scale each component to mean square 1 (default: one factor for all, so that the mean over components is 1)")
    add("--like", default=None, metavar="FOLDER", help="apply the reduction saved in this folder instead of fitting one")
    return parser
# fmt: on
