"""How hard the suite tries: `--hypothesis-profile thorough` before a release, `ci` otherwise."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    max_examples=6,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # a JAX compile is slow by nature
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=200, derandomize=False)
settings.load_profile("ci")
