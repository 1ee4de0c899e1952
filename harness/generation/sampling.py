"""How the next token is chosen from the logits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampling:
    """Draw tokens instead of taking the likeliest one.

    What is drawn for a prompt depends on the seed, the prompt's ids and nothing else: not on what is answered beside
    it, nor on the device. So the same prompt with the same seed gets the same answer (of the same model).

    Attributes:
        temperature: The logits are divided by it; above 0.
        top_p: Only the likeliest tokens that together reach this probability are drawn from (Holtzman et al. 2020,
            nucleus sampling); above 0, at most 1.
        seed: Of the draws; at least 0.

    Raises:
        ValueError: A value is out of its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.temperature < float("inf") and 0 < self.top_p <= 1 and self.seed >= 0):
            raise ValueError(
                f"temperature {self.temperature}, top_p {self.top_p}, seed {self.seed}; expected a temperature "
                "above 0, a top_p above 0 and up to 1, a seed of 0 or more"
            )
