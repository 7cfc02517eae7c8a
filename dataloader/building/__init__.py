"""Builds the tasks of a gym, from public data sets or from a user's tables.

recipe.py         what a recipe is             sampling.py      cuts and draws of samples
text.py           pieces of templates          task_folder.py   the files of one task
sources.py        parquet files and raw files  build_tasks.py   several tasks in parallel
raw_file.py       formats of raw files         verification.py  comparison with published MD5 sums
readers.py        common readers of raw files  report.py        gym_report.csv and the printed table
downloads.py      downloads, caches, mirrors   gym_files.py     metrics.json, ontology.json, split.json
tables.py         a user's tables              table_rows.py    their rows as examples
own_task.py       a task of them, and its place in the gym

downloads.csv has sizes and checksums of raw files, published_md5sums.csv those of the published gym.
"""
