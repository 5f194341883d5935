"""The worker process: loads one model and serves jobs over a socket. Knows nothing of pools or of the gateway."""
