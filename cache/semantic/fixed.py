"""Trust where the operator promises no bound: one threshold, that nothing moves."""

from cache.trust.contract import Decision, Label, Pair


class FixedThreshold:
    """A `Trust` that serves from a confidence on; it audits nothing and learns nothing.

    `threshold` is in (0, 1]; it may be changed at any time.
    """

    def __init__(self, threshold: float) -> None:
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"threshold is {threshold}, it must be above 0 and at most 1")
        self.threshold = threshold

    def decide(self, namespace: str, pair: Pair, confidence: float) -> Decision:
        """Serve what reaches the threshold."""
        return self.preview(namespace, pair, confidence)

    def preview(self, namespace: str, pair: Pair, confidence: float) -> Decision:
        """Say the same: nothing is counted."""
        del namespace, pair
        serve = confidence >= self.threshold
        return Decision(serve, "fixed" if serve else "below-threshold", confidence, self.threshold)

    def learn(self, label: Label) -> None:
        """Leave the threshold as it is."""
