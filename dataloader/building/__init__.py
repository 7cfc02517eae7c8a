"""Builds the tasks of a gym, from public data sets or from a user's tables.

recipe.py       sources of rows, recipes, cuts and draws    text.py         pieces of templates
raw_file.py     formats of raw files and their readers      downloads.py    downloads, caches, mirrors
task_folder.py  the files of one task                       build_tasks.py  several tasks in parallel
report.py       comparison with the published MD5 sums      gym_files.py    metrics, ontology, split
tables.py       a user's tables, their rows as examples     own_task.py     a task of these examples

downloads.csv has sizes and checksums of raw files, published_md5sums.csv those of the published gym.
"""
