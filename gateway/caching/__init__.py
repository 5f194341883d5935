"""What the path asks of the caches: keys, ages, gates, and what a request means. Knows no wire and no pool."""
