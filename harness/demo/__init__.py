"""The same questions put to a model before and after fine-tuning: in a terminal, on a page, in a browser."""
