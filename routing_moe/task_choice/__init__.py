"""Which vector or route a task gets, for training, prediction, fine-tuning and answering.

`choose.Chooser` takes the first source that has something for the task; the other files are the sources.
May import: evaluation and below, dataloader.
"""
