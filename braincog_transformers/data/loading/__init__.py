"""Loading: finding and fetching a set, reading its files, and serving batches."""
