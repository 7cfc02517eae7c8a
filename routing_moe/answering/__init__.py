"""Answering new texts with a trained model, and exporting the plain model of a task's route.

May import: task_choice and below, dataloader.
"""
