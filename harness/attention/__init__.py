"""Attention over packed forests: which slots see which, without a mask where a kernel can do without."""
