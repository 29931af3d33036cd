"""What a typed operation takes and gives."""

from dataclasses import dataclass

from millrace.types import DataType


@dataclass(frozen=True)
class Signature:
    """The type each argument is converted to, and the type of the result."""

    takes: tuple[DataType, ...]
    type: DataType
