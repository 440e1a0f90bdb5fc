"""How hard hypothesis tries: `--hypothesis-profile thorough` before a release, `ci` otherwise."""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "ci",
    max_examples=6,  # most examples compile a model in two frameworks; cheaper tests multiply this
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # no shrinking: every smaller model would compile anew
    suppress_health_check=[HealthCheck.too_slow],  # a JAX compile is slow by nature
)
settings.register_profile(
    "thorough", settings.get_profile("ci"), max_examples=200, derandomize=False, phases=list(Phase)
)
settings.load_profile("ci")
