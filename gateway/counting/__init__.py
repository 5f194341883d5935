"""What is counted of requests, for metrics, statistics and logs. Knows no room's work."""
