"""Task vectors (`task_emb`), gyms of tasks that contradict each other (`conflict_gym`). Their commands write
output folders at once by `written_folder.py`.
"""
