"""The flags of `routing_moe.cli.finetune`. Names are those of CrossFit's tune_hps_singletask.py."""

import argparse
import os
from pathlib import Path

from routing_moe.cli.arguments import add_texts
from routing_moe.cli.console import parse_or_guess
from routing_moe.evaluation.unseen_tasks import VECTOR_SOURCES
from routing_moe.finetuning.settings import ROUTE_TRAININGS, FinetuneSettings

NO_CHECKPOINT = ("None", "")  # as the published scripts pass it on where none is named


def parse_settings(argv: list[str] | None, description: str) -> FinetuneSettings:
    values = vars(parse_or_guess(build_parser(description), argv))
    values["task_dir"] = os.path.normpath(values["task_dir"])  # "gym/boolq/" is "gym/boolq"
    values["dataset"] = values["dataset"] or Path(values["task_dir"]).absolute().name
    values["checkpoint"] = None if values["checkpoint"] in NO_CHECKPOINT else values["checkpoint"]
    return FinetuneSettings(**values)


def build_parser(description: str = "") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m routing_moe.cli.finetune",
        usage="%(prog)s --task_dir FOLDER --output_dir FOLDER [--do_train] [--do_predict] [flags, see --help]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an abbreviated flag would change its meaning when a new one is added
    )
    add_data(parser.add_argument_group("data"))
    add_start(parser.add_argument_group("where fine-tuning starts"))
    add_route(parser.add_argument_group("the task's route through a mixture"))
    add_texts(parser.add_argument_group("texts and decoding"))
    add_grid(parser.add_argument_group("the grid, and how each configuration is trained"))
    add_running(parser.add_argument_group("running, evaluating, saving"))
    return parser


# fmt: off
def add_data(group) -> None:
    add = group.add_argument
    add("--task_dir", required=True, help="the task's folder, with <task>_<k>_<seed>_{train,dev,test}.tsv or .jsonl")
    add("--dataset", default=None, help="the task's name (default, and always: that of its folder)")
    add("--samples", default="all", help="which samples of the task: all, first, or a seed such as 100 (default: all)")
    add("--skip_malformed", action="store_true", help="leave out malformed lines of task files instead of stopping")
    add("--debug", action="store_true", help="read only 8 examples of every file, spread over it")


def add_start(group) -> None:
    add = group.add_argument
    add("--model", default="facebook/bart-base", help="plain BART: a hub name or a folder; the start if there is no other, and the tokenizer of one that keeps none (default: facebook/bart-base)")
    add("--checkpoint", default=None, help="plain BART to start from: a run with one expert, a saved folder, a hub name, or a file of weights for --model (default: None, which is --model as it is)")
    add("--moe_init", action="store_true", help="start from the mixture in --init_dir, along a route for the task")
    add("--init_dir", default=None, help="run (ours or of the published code) or checkpoint of the mixture")
    add("--init_checkpoint_name", default=None, help="which checkpoint of the run (default: best)")
    add("--freeze_embeds", action="store_true", help="do not train the embeddings of tokens and positions")


def add_route(group) -> None:
    add = group.add_argument
    add("--moe_avg_route", action="store_true", help="every expert with weight 1/E")
    add("--moe_random_route", action="store_true", help="in every layer an expert drawn at random for each example, anew each step")
    add("--moe_random2_route", action="store_true", help="in every layer an expert drawn at random for the task, once (that of the run, if it has one for the task)")
    add("--route_training", choices=ROUTE_TRAININGS, default=None, help="plain: the route is made into a plain BART, each layer its expert of most weight; fixed: it is kept as it is among the experts; vector: the task's vector is trained too; router: vector and router (default: plain if the route amounts to a plain BART, as one-hot routes do, else fixed)")
    add("--task_vector", choices=VECTOR_SOURCES, default="auto", help="of a router: the vector stored in the run; that of the task nearest by text to the sample's own unlabelled train inputs; one learned from the sample's own labelled train rows. The column vector_seen of the results says what each has seen of the task (default: auto: stored, unless the run never learned or was given any for the task, then nearest)")
    add("--taskvecs", default=None, help="folder with id2task.json and task_vecs.npy that holds the task's vector, or one of each of its samples (by --samples each of task.task_emb), made as those the router was trained with")
    add("--text_vectors", default=None, help="of --task_vector nearest: task-vector folder to compare texts by, a sample by its own row if it has one (default: states of the mixture's encoder over train inputs)")
    add("--train_dir", default=None, help="of --task_vector nearest: gym with the mixture's train tasks (default: the folder that --task_dir is in)")
    add("--vector_steps", type=int, default=100, help="of --task_vector learned: optimizer steps of 32 examples (default: 100)")
    add("--task_model_lr", type=float, default=1e-2, help="peak learning rate of a vector that is learned or trained (default: 1e-2)")
    add("--router_lr", type=float, default=1e-3, help="of --route_training router: its peak learning rate (default: 1e-3)")
    add("--random_eval_draws", type=int, default=5, help="of random routes for each example: scores are the mean over so many draws (default: 5)")


def add_grid(group) -> None:
    add = group.add_argument
    add("--learning_rate_list", nargs="*", type=float, default=None, help="peak learning rates to try (default: 1e-5 2e-5 5e-5, or --learning_rate)")
    add("--bsz_list", nargs="*", type=int, default=None, help="batch sizes to try (default: 2 4 8, or --train_batch_size)")
    add("--learning_rate", type=float, default=None, help="the one learning rate, in place of a list")
    add("--train_batch_size", type=int, default=None, help="the one batch size, in place of a list")
    add("--gradient_accumulation_steps", type=int, default=1, help="batches per optimizer step: a step has batch size x this examples (default: 1)")
    add("--max_tokens_per_micro_batch", type=int, default=16384, help="padded source and target tokens that go through the model at once; bounds memory, not results (default: 16384; 0: no bound)")
    add("--total_steps", type=int, default=1000, help="optimizer steps; the learning rate decays to 0 over them (default: 1000)")
    add("--num_train_epochs", type=float, default=1000.0, help="end after so many passes over the data, if before --total_steps (default: 1000)")
    add("--warmup_steps", type=int, default=100, help="steps over which the learning rate rises (default: 100)")
    add("--weight_decay", type=float, default=0.01, help="decoupled weight decay of matrices (default: 0.01)")
    add("--adam_epsilon", type=float, default=1e-8, help="AdamW's epsilon (default: 1e-8)")
    add("--max_grad_norm", type=float, default=0.1, help="clip the norm of the whole gradient of the summed loss (default: 0.1)")
    add("--mixed_precision", choices=("no", "bf16", "fp16"), default=None, help="precision of matrix products; weights stay float32 (default: no)")
    add("--seed", type=int, default=42, help="of batches, dropout and drawn routes, the same for every configuration (default: 42)")


def add_running(group) -> None:
    add = group.add_argument
    add("--output_dir", required=True, help="folder of the grid; what is finished there is not done again")
    add("--do_train", action="store_true", help="train every configuration; without it the start itself is scored")
    add("--do_predict", action="store_true", help="score the test file with the weights of the best dev score")
    add("--eval_period", type=int, default=100, help="steps between dev scores; the last step always has one (default: 100)")
    add("--wait_step", type=int, default=10_000_000_000, help="end a configuration after so many dev scores without a better one (default: never)")
    add("--predict_batch_size", type=int, default=32, help="examples generated at once (default: 32)")
    add("--save_best", action="store_true", help="keep the model of each sample's best configuration in models/<sample>_best; until that is known, of all of them")
    add("--num_workers", type=int, default=1, help="configurations that run side by side, each in a process of its own, spread over the GPUs (default: 1, in this process)")
    add("--ray", default=None, metavar="ADDRESS", help="run configurations on a Ray cluster: its address, auto, or local to start one of --num_workers CPUs here; --num_workers tasks share its GPUs (needs the extra: pip install .[ray])")
    add("--quiet", action="store_true", help="no progress bars")
# fmt: on
