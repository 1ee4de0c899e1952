"""Forward and backward passes of an engine whose gradients stay on their rank until the step's end; no DeepSpeed here.

At ZeRO 0 to 2 nothing in them waits for another rank, so a rank whose memory runs out there can say so afterwards. At
ZeRO 3 they gather weights from all ranks, and one that stops would leave the others waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from harness.data import MicroBatch
from harness.dist import Engine, World, max_over_ranks
from harness.half_precision import missing_scale
from harness.head import count_chunks
from harness.lora import trainable_parameters
from harness.loss import scale_for_engine, split_forward
from harness.memory.limit import is_out_of_memory
from harness.step import Part, StepTally


@contextmanager
def gradients_kept_local(engine: Engine) -> Iterator[None]:
    """Let backward passes add gradients up on their rank, without any communication, at every ZeRO stage.

    It is the first half of DeepSpeed's `coalesce_grad_reduction`, whose end always reduces what it has.
    """
    engine.set_gradient_accumulation_boundary(is_boundary=False)
    engine.inside_no_sync_ctxt = engine.optimizer._coalesce_grad_reduction = True
    try:
        yield
    finally:
        engine.inside_no_sync_ctxt = engine.optimizer._coalesce_grad_reduction = False


def run_micro_step(
    engine: Engine,
    batch: MicroBatch,
    world: World,
    *,
    global_valid_tokens: int,
    seed: int,
    num_chunks: int | None,
    part: Part,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One forward and backward pass.

    Args:
        engine: From `harness.engine.build_engine`.
        batch: On the host or on the device.
        world: This rank's place.
        global_valid_tokens: Supervised tokens of the step, over all ranks.
        seed: Of the step's dropout.
        num_chunks: Passes through the head; see `harness.engine.train_step`.
        part: Opens a part of the step for timing.

    Returns:
        The sum of the losses and each token's loss, both outside the graph.
    """
    with split_forward(engine.module, part):
        common = common_chunks(engine, batch, num_chunks)
        loss_sum, losses = engine(batch, seed=seed, num_chunks=common)
    with part("backward"):
        loss = scale_for_engine(loss_sum, world.size, global_valid_tokens) * missing_scale(engine)
        engine.backward(loss, scale_wrt_gas=False)
    return loss_sum.detach(), losses


def attempt(engine: Engine, action: Callable[[], None]) -> str | None:
    """Run passes. Where memory runs out, return the message's first line, with nothing left that holds tensors.

    At ZeRO 3 other ranks wait for this one in the middle of a pass, so there the error goes on.
    """
    try:
        action()
    except (RuntimeError, MemoryError) as error:
        if engine.zero_optimization_stage() == 3 or not is_out_of_memory(error):
            raise
        # A traceback keeps every frame's tensors, and this one ends with the block.
        return next(iter(str(error).splitlines()), type(error).__name__)
    return None


def run_micro_steps(
    engine: Engine,
    batches: Sequence[MicroBatch],
    world: World,
    tally: StepTally,
    *,
    global_valid_tokens: int,
    seed: int,
    num_chunks: Sequence[int | None],
    part: Part,
) -> None:
    """All passes of a step, added up in `tally`. Where memory runs out at ZeRO 0 to 2 the rest is left out.

    Raises:
        RuntimeError: Memory ran out at ZeRO 3.
    """

    def run(batch: MicroBatch, chunks: int | None) -> None:
        loss_sum, losses = run_micro_step(
            engine,
            batch.to(world.device),
            world,
            global_valid_tokens=global_valid_tokens,
            seed=seed,
            num_chunks=chunks,
            part=part,
        )
        tally.add(batch, loss_sum, losses)

    with gradients_kept_local(engine):
        for batch, chunks in zip(batches, num_chunks, strict=True):
            tally.ran_out = attempt(engine, partial(run, batch, chunks))
            if tally.ran_out is not None:
                drop_gradients(engine)
                return


def common_chunks(engine: Engine, batch: MicroBatch, chunks: int | None) -> int | None:
    """Under ZeRO-3, where each pass through the head gathers it: the passes of the rank that needs the most."""
    if engine.zero_optimization_stage() < 3:
        return None
    if chunks is not None:
        return chunks
    needed = count_chunks(len(batch.targets), engine.module.loss_chunk)
    return int(max_over_ranks(torch.tensor(needed, device=batch.targets.device)).item())


def local_norm(engine: Engine) -> torch.Tensor:
    """The norm of the gradients that lie on this rank's parameters."""
    parameters = [parameter for _, parameter in trainable_parameters(engine.module)]
    return torch.nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])


def drop_gradients(engine: Engine, *, lower_scale: bool = False) -> None:
    """Forget a step's gradients, of which DeepSpeed has not seen any yet, and a backward pass that did not end."""
    engine.zero_grad()
    if not isinstance(engine.optimizer, torch.optim.Optimizer):
        engine.optimizer.zero_grad()  # sets ZeRO's own counters back as well
    hooks = getattr(engine.optimizer, "_backward_hook_state", None)
    if hooks is not None:  # ZeRO counts the passes that it is in, and a broken one never leaves
        hooks.backward_active_depth = hooks.remaining_grad_acc_hooks = 0
        hooks.reset_for_new_step()
    if lower_scale:
        engine.optimizer._update_scale(True)
