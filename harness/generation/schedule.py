"""Which prompts are answered at a time: those of one prefix together, as many as the keys and values may take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.generation.prompts import Prompt

PREFILL_SLOTS = 2048
"""Most tokens of one pass over prompts, which bounds the memory of its activations. A tree may have more by
`PREFIXES_BESIDE` times its prefix: each further pass would compute the prefix again."""

PREFIXES_BESIDE = 4


@dataclass(frozen=True, slots=True)
class Tree:
    """Prompts with the same prefix.

    Attributes:
        prefix: Their prefix; may be empty, with one prompt alone.
        prompts: Their indices.
        row_slots: Most slots that one of their answers needs of its own.
        num_tokens: Of the prefix and all questions.
    """

    prefix: tuple[int, ...]
    prompts: tuple[int, ...]
    row_slots: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Need:
    """What some trees need of the keys and values: each prefix once, and rows as long as the longest.

    Attributes:
        prefix_slots: Slots of all prefixes.
        num_rows: Answers.
        row_slots: Slots of a row.
    """

    prefix_slots: int = 0
    num_rows: int = 0
    row_slots: int = 0

    @property
    def num_slots(self) -> int:
        """Slots in all."""
        return self.prefix_slots + self.num_rows * self.row_slots

    def with_tree(self, tree: Tree) -> Need:
        """The same with one more tree."""
        return Need(
            self.prefix_slots + len(tree.prefix),
            self.num_rows + len(tree.prompts),
            max(self.row_slots, tree.row_slots),
        )


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Refuse what cannot be continued.

    Raises:
        ValueError: A prompt has no ids of its own, or asks for no token.
    """
    for prompt in prompts:
        if not prompt.ids or prompt.max_new_tokens < 1:
            raise ValueError(
                f"a prompt of {len(prompt.ids)} ids and {prompt.max_new_tokens} new tokens; both must be 1 or more"
            )


def slots_of(prompt: Prompt) -> int:
    """Slots that an answer needs of its own: its last token is never computed, so it needs none."""
    return len(prompt.ids) + prompt.max_new_tokens - 1


def plan_trees(prompts: Sequence[Prompt], max_slots: int) -> Iterator[Tree]:
    """Gather the prompts of one prefix, in the order in which the prefixes come first.

    A prefix with more prompts than fit into a tree stands in several trees, and is computed once for each.

    Args:
        prompts: In any order.
        max_slots: Slots that a tree may need. One prompt may exceed it, and the tokens of a pass; more never do.
    """
    by_prefix: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_prefix.setdefault(prompt.prefix, []).append(index)
    for prefix, indices in by_prefix.items():
        taken: list[int] = []
        for index in indices:
            tree = _plant(prefix, [*taken, index], prompts)
            if taken and (not prefix or is_too_large(tree, max_slots)):
                yield _plant(prefix, taken, prompts)
                taken = []
            taken.append(index)
        yield _plant(prefix, taken, prompts)


def is_too_large(tree: Tree, max_slots: int) -> bool:
    """Whether a tree needs more keys and values than there may be, or has more tokens than a pass may have."""
    most = PREFILL_SLOTS + PREFIXES_BESIDE * len(tree.prefix)
    return Need().with_tree(tree).num_slots > max_slots or tree.num_tokens > most


def _plant(prefix: tuple[int, ...], indices: Sequence[int], prompts: Sequence[Prompt]) -> Tree:
    own = [prompts[index] for index in indices]
    return Tree(
        prefix,
        tuple(indices),
        max(map(slots_of, own)),
        len(prefix) + sum(len(prompt.ids) for prompt in own),
    )


def fill_rows(trees: Sequence[Tree]) -> Iterator[list[Tree]]:
    """Trees that are computed in one pass, in their order."""
    row: list[Tree] = []
    for tree in trees:
        if row and sum(other.num_tokens for other in row) + tree.num_tokens > PREFILL_SLOTS:
            yield row
            row = []
        row.append(tree)
    if row:
        yield row
