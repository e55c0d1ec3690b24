"""Pages made from the docstrings."""
