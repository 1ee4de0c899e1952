"""Each rank's guardian: a light process that sees its rank die, stop or hang, and ends all ranks with the cause.

No torch is imported in here.
"""
