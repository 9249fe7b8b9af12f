"""One HTML file that makes no request, and how large it will be."""

from classspace_widgets.export.html import ExportedPage, estimate_bytes, export_html

__all__ = ["ExportedPage", "estimate_bytes", "export_html"]
