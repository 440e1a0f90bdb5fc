"""One self-contained page a run, and its curves as files, made from what stands in the run directory."""

from train.report.page import told, write

__all__ = ["told", "write"]
