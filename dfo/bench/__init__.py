"""Many runs: suites of problems x methods x seeds, and what can be said about them.

Example:
    >>> from dfo.bench import Plan, bench, load_suite
    >>> plan = Plan.of(load_suite("quick").narrowed(dims=[2], functions=["sphere"]), ["random"], budget="10d")
    >>> [record.evaluations for record in bench(plan)]
    [20]
"""
