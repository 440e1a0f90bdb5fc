"""Proof that both backends are one function: a float64 oracle, random cases, derived tolerances, and mutants."""
