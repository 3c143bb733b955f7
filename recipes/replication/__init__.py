"""Published results, run again: what each run left, and the page that compares it with the publication."""
