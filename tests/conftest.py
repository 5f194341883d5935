"""What every test runs under: hypothesis without time limits (the machine may be busy), no telemetry of a runtime."""

import os

from hypothesis import settings

# ONNX Runtime would otherwise upload usage data from the tests that open a session themselves.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

settings.register_profile("warmgate", deadline=None)
settings.load_profile("warmgate")
