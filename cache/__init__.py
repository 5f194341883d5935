"""Remember answers: exact tiers, a semantic tier, single-flight. Knows nothing of HTTP or of models."""
