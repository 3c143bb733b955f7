"""A fair comparison: runs of a recipe that differ in named values alone, paired by seed."""
