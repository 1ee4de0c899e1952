"""Train, evaluate and show a language model that understands lyrics, over DeepSpeed."""

import os

# Bars of other libraries would be drawn once by every rank, and into log files. Ours are drawn by rank 0, with rich.
os.environ.setdefault("TQDM_DISABLE", "1")
