"""The flags of `routing_moe.cli.train`, with their meaning. Names and defaults are the published ones."""

import argparse
import dataclasses
from pathlib import Path

from dataloader.errors import InputError
from dataloader.gym import PARTS
from routing_moe.checkpoints.start import ARCHITECTURE_DEFAULTS as ARCHITECTURE
from routing_moe.cli.console import flags_given, parse_or_guess
from routing_moe.config.settings import SELECTIONS, Settings
from routing_moe.evaluation.option_ranking import SCORINGS
from routing_moe.evaluation.unseen_tasks import FOUND_BY_RULE
from routing_moe.io.run_folder import load_run_settings
from routing_moe.model.routed_layer import EXPERT_MIXINGS
from routing_moe.model.routers import ROUTERS
from routing_moe.model.selection import ROUTER_MODES

# What a prediction takes from the training run unless it is given.
AS_TRAINED = (
    "train_dir",
    "predict_dir",
    "custom_tasks_splits",
    "task_ontology",
    "skip_malformed",
    "max_input_length",
    "max_output_length",
    "do_lowercase",
    "append_another_bos",
    "hide_task_names",
    "scoring",
    "num_beams",
    "no_repeat_ngram_size",
    "generate_from_bos",
    "predict_batch_size",
    "random_eval_draws",
    "seed",  # of the draws of random routes
)


def parse_settings(argv: list[str] | None, description: str) -> Settings:
    """Settings from a command line.

    Without --do_train, what decides a score (data, texts, decoding) is as in the training run whose
    checkpoint predicts, unless given. Raises InputError if that run's run.json cannot be read.
    """
    parser = build_parser(description)
    known = parse_or_guess(parser, argv)
    if not known.do_train:
        run = Path(known.checkpoint).parent if known.checkpoint else known.output_dir
        trained = load_run_settings(run) or {}
        if "train_dir" in flags_given(build_parser(""), argv) and known.train_dir != trained.get("train_dir"):
            trained.pop("predict_dir", None)  # another gym is named, with dev and test files of its own
        parser.set_defaults(**trained_defaults(trained, Path(run) / "run.json"))
        known = parser.parse_args(argv)
    settings = Settings(**vars(known))
    return dataclasses.replace(settings, predict_dir=settings.predict_dir or settings.train_dir)


def trained_defaults(trained: dict, path: Path) -> dict:
    """The settings that a prediction takes from its run. InputError for a value of the wrong type."""
    kinds = {field.name: field.type for field in dataclasses.fields(Settings)}
    found = {name: trained[name] for name in AS_TRAINED if name in trained}
    wrong = [name for name, value in found.items() if not isinstance(value, kinds[name])]
    if wrong:
        raise InputError(f"{path}: is damaged: {name} is {found[name]!r}; give --{name}" for name in wrong)
    return found


def build_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m routing_moe.cli.train",
        usage="%(prog)s --output_dir FOLDER [--do_train] [--do_predict] [flags, see --help]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an abbreviated flag would change its meaning when a new one is added
    )
    add_data(parser.add_argument_group("data"))
    add_start(parser.add_argument_group("where the model starts"))
    add_routing(parser.add_argument_group("experts and router"))
    add_texts(parser.add_argument_group("texts and decoding"))
    add_optimisation(parser.add_argument_group("optimisation"))
    add_running(parser.add_argument_group("running, evaluating, saving"))
    return parser


def layers(text: str) -> list[int]:
    """ "0,3,5" -> [0, 3, 5]; "" -> []."""
    try:
        return sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list of layer numbers") from None


# fmt: off
def add_data(group) -> None:
    add = group.add_argument
    add("--train_dir", default="data", help="gym folder: <task>/<task>_<k>_<seed>_{train,dev,test}.tsv or .jsonl (default: data)")
    add("--predict_dir", default=None, help="gym folder for dev and test scores (default: that of --train_dir)")
    add("--custom_tasks_splits", default=None, help="JSON with task lists train, dev, test (default: split.json in --train_dir)")
    add("--task_ontology", default=None, help="two-level ontology JSON for pictures and tables (default: ontology.json in --train_dir, else that of the 160 CrossFit tasks)")
    add("--taskvecs", default=None, help="folder with id2task.json and task_vecs.npy, such as the commands of task.task_emb write; without --do_train, of tasks that were not trained on (default: random vectors for every task of the split)")
    add("--taskvecs_dim", type=int, default=None, help="dimension of random task vectors (default: 768; read from the file with --taskvecs)")
    add("--skip_malformed", action="store_true", help="leave out malformed lines of task files instead of stopping")
    add("--debug", action="store_true", help="read only 8 examples of every task file: of train files the first, of dev and test files spread over them")


def add_start(group) -> None:
    add = group.add_argument
    add("--model", default="facebook/bart-base", help="plain BART: a hub name or a folder (default: facebook/bart-base)")
    add("--initialize_from_vanilla", action="store_true", help="start with every expert a copy of --model's layer; otherwise from a routing checkpoint")
    add("--vanilla_checkpoint", default=None, help="weights to use in place of --model's: .pt, .safetensors or a saved folder")
    add("--init_eps", type=float, default=1e-8, help="standard deviation of the noise added to each copy; below float32 resolution for weights near 1 (default: 1e-8)")
    add("--checkpoint", default=None, help="routing checkpoint folder to start from (default: --output_dir/--checkpoint_name)")
    add("--checkpoint_name", default="best", help="which checkpoint of --output_dir to start or predict from: best, last, or any folder there with a checkpoint, such as the <step>-steps that --save_period keeps (default: best)")


def add_routing(group) -> None:
    add = group.add_argument
    add("--num_experts", type=int, default=None, help=f"experts per layer; 1: multi-task BART, without routes (default: {ARCHITECTURE['num_experts']}, or the checkpoint's)")
    add("--avg_routing", action="store_true", help="every expert with weight 1/E, for every task")
    add("--random_routing", action="store_true", help="in every layer an expert drawn at random for each example, anew each step")
    add("--task_level_random_routing", action="store_true", help="in every layer --task_level_random_n experts drawn at random for each task, once")
    add("--task_level_random_n", type=int, default=1, help="of --task_level_random_routing: experts a layer, with weight 1/n each (default: 1)")
    add("--random_eval_draws", type=int, default=5, help="of --random_routing: scores are the mean over so many draws of all routes, each a pass over the files that decodes at the cost of all experts (default: 5)")
    add("--expert_mixing", choices=EXPERT_MIXINGS, default=None, help=f"what soft routes mix; with merged parameters a layer runs once, whatever the number of experts (default: {ARCHITECTURE['expert_mixing']}, or the checkpoint's)")
    add("--router_nn_type", default=None, help=f"{', '.join(ROUTERS)} (default: {ARCHITECTURE['router_nn_type']}, or the checkpoint's)")
    add("--router_hidden_dim", type=int, default=None, help=f"width of the router's hidden layer (default: {ARCHITECTURE['router_hidden_dim']}, or the checkpoint's)")
    add("--router_mode", default=None, help=f"{', '.join(ROUTER_MODES)} (default: {ARCHITECTURE['router_mode']}, or the checkpoint's)")
    add("--router_top_k", type=int, default=None, help=f"of --router_mode top_k: experts with a weight above 0 (default: {ARCHITECTURE['router_top_k']}, or the checkpoint's)")
    add("--encoder_vanilla_layers", type=layers, default=None, metavar="0,1", help="encoder layers, from 0, that stay one plain layer (default: none)")
    add("--decoder_vanilla_layers", type=layers, default=None, metavar="0,1", help="decoder layers, from 0, that stay one plain layer (default: none)")
    add("--initial_tau", type=float, default=2.0, help="temperature of the routes at the start (default: 2.0)")
    add("--minimum_tau", type=float, default=0.1, help="temperature that annealing ends at (default: 0.1)")
    add("--anneal_rate", type=float, default=3e-4, help="temperature = max(initial_tau * exp(-anneal_rate * step), minimum_tau) (default: 3e-4)")
    add("--exploration_epsilon", type=float, default=0.0, help="probability that a layer's choice is a random expert in training (default: 0)")
    add("--expert_regularization", type=float, default=0.0, help="weight of the distance between experts in the loss (default: 0)")
    add("--alternate_every", type=int, default=0, help="steps between turns of BART and of router with task vectors (default: 0, always both)")
    add("--freeze_task_model", action="store_true", help="do not train the task vectors")


def add_texts(group) -> None:
    add = group.add_argument
    add("--max_input_length", type=int, default=512, help="tokens of an input, special ones included (default: 512)")
    add("--max_output_length", type=int, default=64, help="tokens of an output, special ones included (default: 64)")
    add("--do_lowercase", action="store_true", help="lowercase inputs and outputs, gold answers included")
    add("--append_another_bos", action="store_true", help="put a second <s> before inputs and outputs")
    add("--hide_task_names", action="store_true", help="begin every input with [task] instead of the task's name, so that only the route, if any, identifies the task")
    add("--scoring", choices=SCORINGS, default="generate", help="how dev and test answers are made. rank: the likeliest of an example's options, by mean log-probability per token, in tasks with an options field, a list (A) ... (B) ... in the input, or a set of labels, as their train files show; other tasks are generated (default: generate)")
    add("--num_beams", type=int, default=4, help="beams of generation (default: 4)")
    add("--no_repeat_ngram_size", type=int, default=None, help="generate no n-gram of this size twice; 0: no such rule (default: as the model's generation settings say; facebook/bart-base's say 3)")
    add("--generate_from_bos", action="store_true", help="start generation from <s>, as the published code does; training starts from </s>, and so does generation by default")
    add("--eval_sampled_routes", action="store_true", help="score with routes sampled with Gumbel noise, as the published code does; scores are then random")


def add_optimisation(group) -> None:
    add = group.add_argument
    add("--train_batch_size", type=int, default=16, help="examples per published batch (default: 16)")
    add("--gradient_accumulation_steps", type=int, default=2, help="published batches per optimizer step: a step has train_batch_size x this examples over all processes (default: 2)")
    add("--max_tokens_per_micro_batch", type=int, default=16384, help="padded source and target tokens that go through the model at once; bounds memory, not results (default: 16384; 0: no bound)")
    add("--learning_rate", type=float, default=1e-5, help="peak learning rate of BART (default: 1e-5)")
    add("--router_lr", type=float, default=1e-3, help="peak learning rate of the router (default: 1e-3; 0: frozen)")
    add("--task_model_lr", type=float, default=1e-3, help="peak learning rate of the task vectors (default: 1e-3; 0: frozen)")
    add("--weight_decay", type=float, default=0.01, help="decoupled weight decay of matrices (default: 0.01)")
    add("--adam_epsilon", type=float, default=1e-8, help="AdamW's epsilon (default: 1e-8)")
    add("--max_grad_norm", type=float, default=0.1, help="clip the norm of the whole gradient of the summed loss (default: 0.1)")
    add("--num_train_epochs", type=float, default=100.0, help="end after so many passes over the data, if before --total_steps (default: 100)")
    add("--total_steps", type=int, default=100000, help="optimizer steps; the learning rate decays to 0 over them (default: 100000)")
    add("--warmup_ratio", type=float, default=0.06, help="share of --total_steps over which the learning rate rises (default: 0.06)")
    add("--mixed_precision", choices=("no", "bf16", "fp16"), default=None, help="precision of matrix products; weights stay float32 (default: what accelerate launch was told, else no)")
    add("--seed", type=int, default=42, help="of batches, routes, dropout and new weights (default: 42)")


def add_running(group) -> None:
    add = group.add_argument
    add("--output_dir", required=True, help="run folder")
    add("--do_train", action="store_true", help="train")
    add("--do_predict", action="store_true", help="score dev and test files with the best checkpoint (after training) or --checkpoint_name")
    add("--resume", action="store_true", help="continue the run in --output_dir, or begin it if nothing was saved yet")
    add("--equal_flops", metavar="RUN", default=None, help="do not train; print how many steps of this training cost the training FLOPs of RUN")
    add("--eval_period", type=int, default=150, help="steps between evaluations (default: 150)")
    add("--no_eval_until", type=int, default=0, help="no evaluation before this step (default: 0)")
    add("--select_best", choices=SELECTIONS, default=None, help="evaluations that may become the best checkpoint: only those at the run's final temperature, or all (default: final_temperature with --router_lr 0, as in the second stage, else all)")
    add("--checkpoint_period", type=int, default=0, help="steps between writes of last/, from which --resume continues (default: 0, at every evaluation)")
    add("--save_period", type=int, default=10_000_000_000, help="steps between checkpoints that are kept as <step>-steps/ (default: never)")
    add("--log_with", choices=("csv", "tensorboard", "wandb"), default="csv", help="curves: always curves.csv, plus one of accelerate's trackers (default: csv)")
    add("--predict_batch_size", type=int, default=64, help="examples generated at once (default: 64)")
    add("--predict_split", choices=PARTS, default="train", help="which tasks of the split --do_predict scores (default: train)")
    add("--predict_samples", default="first", help="which samples of a task are scored: first, all, or a seed such as 100 (default: first)")
    add("--predict_temperature", type=float, default=None, help="temperature of soft routes in --do_predict (default: that of the checkpoint)")
    add("--task_vector", choices=FOUND_BY_RULE, default=FOUND_BY_RULE[0], help="which vector the router reads for the tasks that --do_predict scores. nearest: train tasks of the split their own, any other a copy of that of the train task whose texts are most alike; stored: all their own, be it random; auto: their own unless it is random or missing, else the nearest. The column vector_seen of the scores says what each vector has seen of its task: nearest: unlabelled inputs of its first sample; stored: what the vectors given to training had seen; random: nothing (default: auto)")
    add("--text_vectors", default=None, help="folder with id2task.json and task_vecs.npy by which the nearest task is found, made of the tasks' texts by any method (default: from the train files of --train_dir or --predict_dir, by the model's own encoder along the average of its experts)")
    add("--prefix", default="", help="put before the names of the files that --do_predict writes")
# fmt: on
