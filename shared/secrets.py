"""Reads secrets from files: `PLENARY_API_KEY_FILE` names the file that holds what `PLENARY_API_KEY` would.

A file is not seen by `docker inspect`, in `/proc` or by child processes, and is what secret stores of containers
provide. The newline at its end does not count. A secret is given in one way: a value and a file are an error.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

PREFIX: Final = "PLENARY_"


class SecretFileError(Exception):
    """Raised for a secret whose file cannot be used; the text names the variable and never repeats the secret."""


def file_variable(field: str) -> str:
    """Returns the variable that names the file of a setting: `PLENARY_API_KEY_FILE` for `api_key`."""
    return f"{PREFIX}{field.upper()}_FILE"


def read_secret(field: str, environment: Mapping[str, str]) -> str | None:
    """Returns what the file of a setting holds; None if no file is named. Raises `SecretFileError`."""
    variable = file_variable(field)
    path = environment.get(variable, "")
    if not path:
        return None
    if environment.get(f"{PREFIX}{field.upper()}"):
        raise SecretFileError(f"{variable} and {PREFIX}{field.upper()} are both set: set one of them")
    try:
        secret = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as failed:
        raise SecretFileError(f"{variable}: cannot read {path}: {failed.strerror}") from None
    except UnicodeDecodeError:
        raise SecretFileError(f"{variable}: {path} is not UTF-8") from None
    if not secret:
        raise SecretFileError(f"{variable}: {path} is empty")
    if "\n" in secret:
        raise SecretFileError(f"{variable}: {path} has more than one line")
    return secret


class SecretFiles(PydanticBaseSettingsSource):
    """The values of those of `fields` that the settings have and whose variables name a file."""

    def __init__(self, settings_cls: type[BaseSettings], fields: Sequence[str]) -> None:
        super().__init__(settings_cls)
        self._fields = [field for field in fields if field in settings_cls.model_fields]

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return read_secret(field_name, os.environ), field_name, False

    def __call__(self) -> dict[str, Any]:
        typed = self.current_state  # what was typed wins over the environment
        found = {field: read_secret(field, os.environ) for field in self._fields if field not in typed}
        return {field: secret for field, secret in found.items() if secret is not None}
