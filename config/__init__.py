"""What the operator wrote: typed settings, and YAML errors with line numbers. Knows nothing of what they configure."""
