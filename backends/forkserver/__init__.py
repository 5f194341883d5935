"""The one process that forks all children of a gateway. Knows nothing of pools, and of models only where they start."""
