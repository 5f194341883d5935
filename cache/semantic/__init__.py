"""Finds remembered answers by meaning. The only home of faiss."""

from cache.semantic.guards import Veto
from cache.semantic.lookup import DEFAULT_THRESHOLD, Match, Miss, SemanticCache

__all__ = ["DEFAULT_THRESHOLD", "Match", "Miss", "SemanticCache", "Veto"]
