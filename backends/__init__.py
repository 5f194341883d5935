"""Run models: workers, pools, demand. Knows nothing of the server's HTTP, of surfaces or of caches."""
