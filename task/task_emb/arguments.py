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
    """The flags of --recipe published."""
    values = dict(settings_class.PUBLISHED_RECIPE)
    flags = ["--task_names"] if values.pop("task_names") else []
    flags += ["all examples"] if values.pop("max_examples") else []
    return ", ".join([*flags, *(f"--{name} {value}" for name, value in values.items())])


# fmt: off
def method_parser(settings_class, usage: str, description: str) -> argparse.ArgumentParser:
    """With the flags that all methods have."""
    parser = parser_of(settings_class.method, usage, description)
    add = parser.add_argument_group("tasks and output").add_argument
    add("--output_dir", required=True, help="folder of the vectors; what is finished there is not computed again")
    add("--tasks", nargs="+", default=None, metavar="TASK", help="names of tasks, and sections of the split such as train (default: all of the split, else all there are)")
    add("--custom_tasks_splits", default=None, help="JSON with task lists train, dev, test (default: split.json in --train_dir, if there)")
    add("--num_workers", type=int, default=1, help="tasks that are computed side by side, each in a process, spread over the GPUs; on CPUs the bits are the same if OMP_NUM_THREADS is (default: 1, in this process)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def random_parser(settings_class, description: str) -> argparse.ArgumentParser:
    parser, default = method_parser(settings_class, "--output_dir FOLDER", description), defaults_of(settings_class)
    add = parser.add_argument_group("the draw").add_argument
    add("--train_dir", default=None, help="gym folder whose tasks get a vector (default: those of the split, or of --tasks)")
    add("--taskvecs_dim", type=int, default=default["taskvecs_dim"], help="dimension (default: %(default)s)")
    add("--sigma", type=float, default=default["sigma"], help="standard deviation (default: %(default)s)")
    add("--seed", type=int, default=default["seed"], help="of the draw (default: %(default)s)")
    return parser


def descriptions_parser(settings_class, description: str) -> argparse.ArgumentParser:
    parser = method_parser(settings_class, "--descriptions FILE --output_dir FOLDER", description)
    add = parser.add_argument_group("sentences").add_argument
    add("--descriptions", required=True, help="JSON file: {task: sentence, or list of sentences}")
    add("--encoder", default=defaults_of(settings_class)["encoder"], help="sentence encoder: a folder or a hub name (default: %(default)s)")
    return parser


def gym_parser(settings_class, description: str) -> argparse.ArgumentParser:
    """For methods that read train files with a BART."""
    parser = method_parser(settings_class, "--train_dir GYM --output_dir FOLDER", description)
    default = defaults_of(settings_class)
    answers = "labelled rows" if settings_class.reads_answers else "unlabelled inputs"
    kind = "a run of ours, mixtures too" if settings_class.takes_mixtures else "a run of ours with one expert"
    add = parser.add_argument_group("data and model").add_argument
    add("--train_dir", required=True, help="gym folder; only its train files are opened")
    add("--recipe", choices=(PUBLISHED,), default=None, help=f"published: the settings of the published code, for the flags that are not given: {recipe_flags(settings_class)} (default: those that --help names)")
    add("--model", default=default["model"], help=f"BART: a hub name, a saved folder, or {kind} (default: %(default)s)")
    add("--tokenizer", default=None, help="hub name or folder of the tokenizer (default: that of --model)")
    add("--samples", default=default["samples"], help=f"train files to read: those of a task's first sample, of all samples, or of a seed such as 100. each: every sample gets a vector of its own rows, named after it, such as boolq_32_100, and the task gets that of its first sample; for few-shot use, because fine-tuning reads a sample's own vector. A vector sees {answers} of one sample or, with all, of all samples; if they are labelled, unseen tasks are no longer zero-shot (default: %(default)s)")
    add("--max_examples", type=int, default=default["max_examples"], help="examples of a task at most, evenly spaced over its train files; tasks of equally many compare best (default: %(default)s)")
    add("--skip_malformed", action="store_true", help="leave out malformed lines of task files instead of stopping")
    add = parser.add_argument_group("texts").add_argument
    add("--max_input_length", type=int, default=default["max_input_length"], help="tokens of an input, special ones included (default: %(default)s)")
    if settings_class.reads_answers:
        add("--max_output_length", type=int, default=default["max_output_length"], help="tokens of an output, special ones included (default: %(default)s)")
    add("--do_lowercase", action="store_true", help="lowercase texts")
    add("--append_another_bos", action="store_true", help="put a second <s> before texts")
    add("--task_names", action=argparse.BooleanOptionalAction, default=default["task_names"], help="put the task's name before each input, as in training: ' [task] input' (default: bare inputs)")
    add("--max_tokens_per_micro_batch", type=int, default=default["max_tokens_per_micro_batch"], help="padded tokens that go through the model at once; bounds memory, that of each of --num_workers (default: %(default)s; 0: no bound)")
    return parser


def training_parser(settings_class, description: str) -> argparse.ArgumentParser:
    """For methods that train on a task first."""
    parser, default = gym_parser(settings_class, description), defaults_of(settings_class)
    rate = default["learning_rate"] or "1e-3 of adapters, 3e-5 of layers"
    add = parser.add_argument_group("training on the task").add_argument
    add("--total_steps", type=int, default=default["total_steps"], help="optimizer steps (default: %(default)s)")
    add("--learning_rate", type=float, default=default["learning_rate"], help=f"peak learning rate, which decays to 0; 0: weights stay as they are (default: {rate})")
    add("--train_batch_size", type=int, default=default["train_batch_size"], help="examples of a step (default: %(default)s)")
    add("--warmup_ratio", type=float, default=default["warmup_ratio"], help="part of the steps over which the rate rises (default: %(default)s)")
    add("--weight_decay", type=float, default=default["weight_decay"], help="decoupled weight decay of matrices (default: %(default)s)")
    add("--adam_epsilon", type=float, default=default["adam_epsilon"], help="AdamW's epsilon (default: %(default)s)")
    add("--max_grad_norm", type=float, default=default["max_grad_norm"], help="clip the norm of the gradient of the summed loss (default: %(default)s)")
    add("--mixed_precision", choices=("no", "bf16", "fp16"), default=default["mixed_precision"], help="precision of matrix products in training; weights stay float32 (default: no)")
    add("--seed", type=int, default=default["seed"], help="of batches, dropout and adapters, the same for every task (default: %(default)s)")
    return parser


def with_pooling(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    group = parser.add_argument_group("states")
    group.add_argument("--pooling", choices=POOLINGS, default="mean", help="of an input's states: mean over its tokens, or the one at <s> (default: %(default)s)")
    return parser


def fisher_parser(settings_class, description: str) -> argparse.ArgumentParser:
    parser, default = training_parser(settings_class, description), defaults_of(settings_class)
    add = parser.add_argument_group("whose Fisher information").add_argument
    add("--weights", choices=settings_class.WEIGHTS, default=default["weights"], help="trained, and looked at: adapters put into a frozen BART, or all weights of its layers (default: %(default)s)")
    add("--bottleneck", type=int, default=None, help="of adapters: their inner width (default: 16)")
    add("--average_over", choices=PARTS, default=None, help="one number of the vector for each weight; for each output unit, the mean of its weights; for each weight or bias tensor; for each layer (default: weight of adapters, unit of layers)")
    return parser


def reduce_parser(description: str = "") -> argparse.ArgumentParser:
    parser = parser_of("reduce", "--taskvecs FOLDER --dim D --output_dir FOLDER", description)
    add = parser.add_argument
    add("--taskvecs", required=True, help="folder of the vectors")
    add("--output_dir", required=True, help="folder to write")
    add("--dim", type=int, default=None, help="components to keep, at most one less than tasks to fit on")
    add("--fit_on", nargs="+", default=None, metavar="TASK", help="tasks, or sections of the split, to fit on (default: train; all: of the split, or of the folder)")
    add("--custom_tasks_splits", default=None, help="JSON with task lists train, dev, test")
    add("--transform", choices=TRANSFORMS, default=None, help="of each vector before: unit: to length 1; log: of each number, for Fisher information, whose numbers differ by orders of magnitude (default: none)")
    add("--no_standardisation", action="store_true", help="leave the variances of the input dimensions as they are (default: each is made 1)")
    add("--whiten", action="store_true", help="give each component mean square 1 (default: one factor for all, so that their mean is)")
    add("--like", default=None, metavar="FOLDER", help="apply the reduction of this folder, fitted before, instead of fitting one")
    return parser
# fmt: on
