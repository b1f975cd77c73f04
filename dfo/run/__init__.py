"""Turn the crank: one solver and one oracle, until a stop says so."""
