"""What every test runs under: hypothesis without time limits, for the machine may be busy, and no runtime's telemetry."""

import os

from hypothesis import settings

# ONNX Runtime would otherwise upload usage data from the tests that open a session themselves.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

settings.register_profile("warmgate", deadline=None)
settings.load_profile("warmgate")
