"""Train, evaluate and show a language model that understands lyrics, over DeepSpeed."""
