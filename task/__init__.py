"""Task vectors (`task_emb`), the embedded gym with known skills (`skill_gym`), gyms of skills that contradict
each other (`conflict_gym`). Their commands write gyms by `gym_files.py`, and output folders at once by
`written_folder.py`.
"""
