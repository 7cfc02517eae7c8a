"""Task vectors: what the router reads. Each command writes a folder with `id2task.json`, `task_vecs.npy` and
`meta.json`, which `--taskvecs` of `routing_moe.cli.train` takes. Run them with `python -m` only: some are
named as modules of the standard library.

random.py         N(0, sigma)                             reduce.py      principal components of a folder
text.py           encoder states of train inputs          inspect.py     which vectors know a task's kind
finetuned_text.py the same after fine-tuning on the task
fisher.py         Fisher information of adapters          adapters.py, fisher_information.py: its parts
descriptions.py   a sentence encoder on descriptions      inspect_inputs.py, agreement.py, labels.py: parts

command.py  flags, checks and running that the methods share      job.py  a folder of vectors, task by task
sources.py  what a task's vector is made of: train files, descriptions
"""
