"""Work that no client waits for: a durable queue, where its inputs come from, and the callbacks at its end."""
