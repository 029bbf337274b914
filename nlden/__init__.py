"""nlden: remove noise from video and images with non-local attention."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "denoise", "load"]

if TYPE_CHECKING:
    from nlden.api import denoise, load


def __getattr__(name: str) -> Any:
    # Loaded on first use: importing nlden (and ``nlden --help``) must not pay for torch.
    if name in ("denoise", "load"):
        from nlden import api

        return getattr(api, name)
    raise AttributeError(f"module 'nlden' has no attribute {name!r}")
