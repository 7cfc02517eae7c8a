"""Builds the tasks of a gym from public data sets.

recipe.py    what a recipe is               sources.py    parquet files on the hub, and raw files by URL
text.py      pieces of templates            raw_file.py   formats of raw files; readers.py: common readers
sampling.py  cuts and draws of samples
"""
