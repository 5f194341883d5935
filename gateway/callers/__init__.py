"""Who calls, what they may use, and how they would be served. Knows no wire's words."""
