"""Compute task vectors, the input of the router, by one of several methods.

Each command writes a folder with `id2task.json`, `task_vecs.npy` and `meta.json`, for `--taskvecs` of
`routing-moe train`. Run them with `python -m`, not as scripts: some have names of the standard library.

random.py         N(0, sigma)                             reduce.py      principal components of a folder
text.py           encoder states of train inputs          inspect.py     do similar vectors have equal labels?
finetuned_text.py the same after fine-tuning on the task  agreement.py: its statistics
fisher.py         Fisher information of adapters          fisher_information.py: its parts
gradient.py       mean gradient of answers, projected     mean_gradient.py: its parts
descriptions.py   sentence embeddings of descriptions

command.py     the shared `main`: parse, check, compute   job.py  a folder of vectors, filled task by task
extractors.py  a loaded BART, and fine-tuning on one task
sources.py     the data that vectors are computed from: train files, descriptions
"""
