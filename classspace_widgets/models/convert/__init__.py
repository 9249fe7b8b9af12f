"""Vision transformers of other libraries, converted into timm's equal ones and compared with the original.

One module a family; `recognise` finds it by where a class was defined, so none of the libraries is imported here.
"""

from classspace_widgets.models.convert.convert import convert

__all__ = ["convert"]
