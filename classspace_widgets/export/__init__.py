"""One HTML file that opens anywhere, offline, with every control still working."""

from classspace_widgets.export.html import ExportedPage, estimate_bytes, export_html

__all__ = ["ExportedPage", "estimate_bytes", "export_html"]
