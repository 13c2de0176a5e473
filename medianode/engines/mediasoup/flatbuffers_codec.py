"""Encodes and decodes FlatBuffers by their schema, without generated files and with the standard library alone.

A buffer begins with the offset of its root table. All numbers are little-endian. An offset is a uint32 that counts
from its own place forwards. Everything else is one of four kinds of blocks:

* A *table* begins with an int32: its own position minus that of its vtable. The scalars of the table and the offsets
  of its other fields follow, in the places that the vtable names.
* A *vtable* is uint16s: its own size, the size of the table, then for each field of the schema the place of that
  field in the table, or 0 if the field is absent. Tables with the same fields may share one.
* A *string* is its length in bytes, its UTF-8 and a zero byte.
* A *vector* is the number of its elements and then the elements: scalars, or the offsets of strings or tables.

A union is two fields: a uint8 tag that says which member it is (0: none), and the offset of that member's table.

In Python a table is a dict by the field names of the schema, an enum is its name, a union is a tuple (name of the
member, dict) and a vector is a list, but a vector of uint8 is decoded to bytes and may be encoded from either. A
field that is None or missing is absent. Decoding fills in the defaults of absent scalars, and leaves out what else
is absent.

An engine does not check what it reads, so encoding refuses whatever does not fit. Nor is an engine believed:
decoding checks every offset, size, number and required field, and bounds its work by the length of the buffer.
"""

from pathlib import Path
from typing import Any, Final

from medianode.engines.mediasoup.flatbuffers_decoder import DecodeError, Decoder
from medianode.engines.mediasoup.flatbuffers_encoder import Encoder
from medianode.engines.mediasoup.flatbuffers_schema import SchemaError, read_types
from medianode.engines.mediasoup.flatbuffers_types import Enum, Table, Types, Union
from medianode.engines.mediasoup.flatbuffers_validation import EncodeError

__all__ = ["DecodeError", "EncodeError", "Schema", "SchemaError", "load_schema"]


def load_schema(folder: Path) -> "Schema":
    """Reads all `.fbs` files of a folder.

    Raises `SchemaError`, which names file and line, for what is not understood; `OSError` if a file is unreadable.
    """
    return Schema(read_types(folder))


class Schema:
    """Encodes and decodes the tables of a schema.

    `tables`, `unions` and `enums` describe the types by their full names, such as `FBS.Message.Message`.
    """

    def __init__(self, types: Types) -> None:
        self.tables: Final[dict[str, Table]] = types.tables
        self.unions: Final[dict[str, Union]] = types.unions
        self.enums: Final[dict[str, Enum]] = types.enums
        self._encoder = Encoder()
        self._decoder = Decoder()

    def encode(self, root: str, value: dict[str, Any]) -> bytes:
        """Returns a frame, the length of the buffer as uint32 and then the buffer, with `value` as its root table.

        Raises `EncodeError`, which names the field by its path, if the value does not fit the schema; `KeyError` if
        the schema has no table `root`.
        """
        return self._encoder.encode(self.tables[root], value)

    def decode(self, root: str, buffer: bytes | memoryview) -> dict[str, Any]:
        """Returns the root table of a buffer that comes without its length. Invalid UTF-8 becomes U+FFFD.

        Raises `DecodeError` if the buffer is malformed or does not fit the schema, is nested deeper than 64
        tables, or refers to the same blocks so often that it would become a multiple of its size; `KeyError` if the
        schema has no table `root`.
        """
        return self._decoder.decode(self.tables[root], bytes(buffer))
