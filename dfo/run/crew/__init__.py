"""Who evaluates: processes that we own and watch, threads, and other people's executors."""

from dfo.run.crew.choose import Staff, evaluator_of

__all__ = ["Staff", "evaluator_of"]
