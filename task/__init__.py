"""Task vectors (`task_emb`) and the embedded gym with known skills (`skill_gym`)."""
