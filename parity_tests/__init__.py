"""The judge of both backends: a slow float64 oracle, random cases, derived tolerances, and mutants that must die."""
