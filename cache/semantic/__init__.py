"""Find answers by meaning: partitions of vectors, and guards that veto a match. Knows nothing of the embedder."""
