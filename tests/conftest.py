"""What every test runs under: hypothesis without time limits, for the machine may be busy."""

from hypothesis import settings

settings.register_profile("warmgate", deadline=None)
settings.load_profile("warmgate")
