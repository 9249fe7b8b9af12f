"""One HTML file that opens anywhere, offline, with every control still working.

`html` goes from views to the file; `items` says what may stand in it, `portable` and `size` what each view carries and how
large that is, `page` and `packed` write HTML; `saved` makes the form in which a notebook keeps a view.
"""

from classspace_widgets.export.html import ExportedPage as ExportedPage
from classspace_widgets.export.html import export_html
from classspace_widgets.export.portable import Payload

__all__ = ["Payload", "export_html"]
