"""Reads a few-shot gym, evaluates predictions and builds batches. Does not depend on the model.

gym.py            a folder of tasks in the CrossFit format     task_splits.py  train, dev and test tasks
task_files.py     one task file: TSV or JSON lines             options.py      answer options of a task
metrics.py        the seven metrics and each task's metric     ontology.py     category of each task
encoding.py       examples to token ids                        batching.py     batches and micro-batches
task_sampling.py  share of each task in training               templates.py    prompts of one data set
jsonfile.py       JSON with clear errors                       errors.py       InputError
atomic_files.py   atomic writes, locks of folders              progress.py     bars and lines of progress
executor.py       calls in worker processes                    checksums.py    SHA-256 of files
encoded.py        arrays of token ids
building/         builds CrossFit's gym and a user's tasks     recipes/        its 160 tasks and their prompts
"""

from dataloader.batching import answer_choices, assign_to_ranks, micro_batches, step_examples
from dataloader.encoded import EncodedExamples
from dataloader.encoding import TextFormat, encode
from dataloader.errors import InputError, did_you_mean
from dataloader.gym import Example, Gym
from dataloader.metrics import METRIC_FUNCTIONS, METRICS, evaluate
from dataloader.ontology import Ontology
from dataloader.task_files import read_task_file
from dataloader.task_sampling import TaskMixture
from dataloader.task_splits import PUBLISHED_SPLITS, Split, load_split
