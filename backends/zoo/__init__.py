"""Makes the model directories that workers load, from weights and facts. Knows nothing of workers and runs no model."""
