"""Checkpoints that are whole or not there: written aside by all ranks, hashed, renamed when all agree.

    run/checkpoint-40/
        manifest.json              sha256 and size of every other file, and its own; written last
        state.json                 step, best step, loss scale, the run's fingerprint
        state/part-<r>-of-<n>.safetensors    float32 weights and Adam's moments, what rank r owned; not the frozen base
        adapter/                   the adapter as peft loads it

Nothing in it is pickled, and nothing is parsed that has not been hashed. Parts name the values that they hold, so any
number of ranks at any ZeRO stage can read them. Other endings are never loaded:

    checkpoint-40.tmp        a save that did not finish
    checkpoint-40.trash      a deletion that did not finish
    checkpoint-40.old        replaced by another checkpoint of the step; put back if that one never came
    checkpoint-40.set-aside  damaged, and newer than the one that was loaded
"""

from harness.checkpoints.commit import PREFIX, publish_adapter
from harness.checkpoints.folder import CheckpointFolder
from harness.checkpoints.manifest import find_damage
from harness.checkpoints.run_state import RunState

__all__ = ["PREFIX", "CheckpointFolder", "RunState", "find_damage", "publish_adapter"]
