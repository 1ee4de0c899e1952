"""Answers written token by token: one prompt at a time (`plain`), many at once or as a stream (`batch`).

`batch` is put together from `schedule` (which prompts at a time), `active` (the answers that are being generated),
`key_values` (what is kept of lyrics and of answers), `attention` (what a new token sees of both), `sampling` (how it is
chosen) and `reach` (how long a text may be for that to be exact); `prompts` has what goes in and comes out.
"""
