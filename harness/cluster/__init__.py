"""The hosts of a run: who they are, how ranks are started on them, how a launch ended."""
