"""What stands between a socket and a call: HTTP/1.1 connections, within bounds and deadlines. Knows no surface."""
