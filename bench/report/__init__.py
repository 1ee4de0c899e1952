"""`python -m bench report`: tables and plots from every record of bench/results, on one page or as Markdown."""
