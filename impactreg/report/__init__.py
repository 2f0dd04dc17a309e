"""One page that shows a registration: `write_report` on the folder of a finished run."""

from impactreg.report.page import NAME, write_report

__all__ = ["NAME", "write_report"]
