"""The form of EleutherAI's lm-evaluation-harness: results, samples, and the questions as its tasks."""
