"""Pages about a search, several searches or a bundle: one file each, which asks no network for anything."""

from gpnas.report.writing import Request as Request
from gpnas.report.writing import write_report as write_report
