"""What an answer in words is worth: strict, by task, without a model."""

from harness.evaluation.scoring.score import Score, Truth, score_answer

__all__ = ["Score", "Truth", "score_answer"]
