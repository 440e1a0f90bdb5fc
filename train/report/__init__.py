"""The report of a run: one self-contained HTML page and its plots as SVG files, made from the run directory."""

from train.report.page import try_write, write

__all__ = ["try_write", "write"]
