"""Finds remembered answers by meaning. The only home of faiss."""

from cache.semantic.evidence import Evidence, Match, Miss
from cache.semantic.guards import Veto
from cache.semantic.lookup import DEFAULT_THRESHOLD, SemanticCache

__all__ = ["DEFAULT_THRESHOLD", "Evidence", "Match", "Miss", "SemanticCache", "Veto"]
