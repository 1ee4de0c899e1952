"""What a model knows of held-out songs: questions, answers, scores, baselines, and how far they can be trusted."""
