"""What is looked at before a run starts: every host side by side, and the links between them.

    hostfile, config ── request ──┬─ ssh ── probe.py ── facts of host 1 ─┐
                                  ├─ ssh ── probe.py ── facts of host 2 ─┼── checks ── findings ── table, verdict
                                  └─ ssh ── probe.py ── facts of host 3 ─┘                            exit 0 or 3

One question is asked of each host, all at once (`ask`); a check (`software`, `files`, `devices`, `machine`,
`variables`) is a function from the facts to cells and findings, without processes or network; `examine` puts them
together. `link` starts ranks on the hosts and measures what they send.
"""
