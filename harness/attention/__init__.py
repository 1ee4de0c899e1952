"""Attention over packed forests: which slots see which, without a dense mask where a kernel can do without.

`layout` describes a micro-batch, `choice` names the kernel for a device and makes it known to transformers. `flash` is
an operator without masks, over `tiles` on the CPU and `varlen` on a GPU; `flex` takes a block mask; `plain` is what all
are held against.
"""
