"""Photographs that come with the package, so that the first example runs without a picture of one's own."""

from __future__ import annotations

from pathlib import Path

from classspace_widgets.lookup import close_matches

_FOLDER = Path(__file__).parent / "photographs"


def sample_photo(name: str = "espresso") -> Path:
    """File of a photograph that comes with the package, free to use (CC0).

    Parameters
    ----------
    name : {"espresso", "cat"}
        What it shows: an espresso or a tabby cat, both of them classes of the bundled photo model.

    Returns
    -------
    Path
        A JPEG file. ``README.md`` beside it names the photographers.

    Raises
    ------
    KeyError
        For another name.

    Examples
    --------
    >>> sample_photo().name
    'espresso.jpg'
    >>> sample_photo("dog")
    Traceback (most recent call last):
    KeyError: "no sample photograph is called 'dog'; there are cat, espresso"
    """
    names = sorted(file.stem for file in _FOLDER.glob("*.jpg"))
    if name not in names:
        raise KeyError(
            f"no sample photograph is called {name!r}; there are {', '.join(names)}{close_matches(name, names)}"
        )
    return _FOLDER / f"{name}.jpg"
