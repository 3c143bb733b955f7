"""Arms, seeds and comparisons: which runs are planned, where each lies, and what their differences say."""
