"""SciPy, scikit-image and OpenCV: a few scores need them, and import them when they are computed."""

import importlib
from types import ModuleType


def import_or_explain(name: str) -> ModuleType:
    """The module `name`, as "scipy.ndimage".

    Raises:
        ImportError: its library is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(
            f"This score needs {name}, which is not installed: pip install 'u2learn[metrics]'."
        ) from None
