"""How hard hypothesis tries: `dev` by hand, `ci` repeatable, `thorough` for a night; HYPOTHESIS_PROFILE chooses."""

import os

from hypothesis import HealthCheck, settings

# The first example of a kind pays for a compilation, so neither deadlines nor slow starts say anything.
_SLOW_START = (HealthCheck.too_slow,)

settings.register_profile("dev", deadline=None, suppress_health_check=_SLOW_START)
settings.register_profile("ci", deadline=None, suppress_health_check=_SLOW_START, derandomize=True, print_blob=True)
settings.register_profile("thorough", deadline=None, suppress_health_check=_SLOW_START, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))
