"""Figures: every benchmark prints a table with ratios against a named peer of the same run; none asserts a time."""
