"""Tasks as datasets on the Hub: what is published, its shards, its card, and the upload."""
