"""GPUs: what of their memory is free, and which of them a replica gets."""
