"""Whether hits by meaning are right: audits, comparisons, what was decided and why. Knows no wire."""
