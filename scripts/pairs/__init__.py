"""Sets of pairs of questions: reading them, judging them as the gateway does, and the curves of what is served."""
