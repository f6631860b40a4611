"""The JSON objects that describe the parts of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prism_fast.errors import DataError
from prism_fast.storage.files import read


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``.

    Raises:
        DataError: it cannot be read, or holds something else. FileNotFoundError: there is no file.
    """
    try:
        document = json.loads(read(file))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not JSON, not text, or nested without end
        raise DataError(f"{file} is not JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(document, dict):
        raise DataError(f"{file} holds no JSON object; restore it")
    return document
