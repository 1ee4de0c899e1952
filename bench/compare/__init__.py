"""`python -m bench compare A B`: better, worse or noise, figure by figure, of two records, commits or runs."""
