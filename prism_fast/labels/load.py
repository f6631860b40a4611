"""Find a label space by name or read one from a file."""

from __future__ import annotations

from importlib import resources

import yaml
from pydantic import ValidationError

from prism_fast.errors import ConfigError, InputError
from prism_fast.labels.space import BUNDLED, LabelSpace, labels_path


def load_label_space(name_or_path: str) -> LabelSpace:
    """A bundled label space by name, or one of your own from a YAML file.

    Raises:
        InputError: neither a bundled name nor an existing file.
        ConfigError: the file is not a label space.
    """
    if name_or_path == "imagenet1k":
        from prism_fast.labels.imagenet import imagenet1k  # imports timm

        return imagenet1k()
    bundled = name_or_path in BUNDLED
    path = resources.files("prism_fast.labels") / f"{name_or_path}.yaml" if bundled else labels_path(name_or_path)
    if not path.is_file():
        raise InputError(f"label space {name_or_path!r} is neither one of {', '.join(BUNDLED)} nor a YAML file")
    try:
        return LabelSpace.model_validate(yaml.safe_load(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"label space {name_or_path!r} is not valid: {where}{': ' if where else ''}{first['msg']}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"label space {name_or_path!r} is not YAML: {str(error).splitlines()[0]}") from error
