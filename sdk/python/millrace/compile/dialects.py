"""The SQL dialects of the engines. sqlglot has none for Flink; this is the part we speak."""

from typing import ClassVar

from sqlglot import TokenType, exp, generator, parser, tokens
from sqlglot.dialects.dialect import Dialect

SPARK = "spark"
"""sqlglot's name of the dialect of Spark."""


class MillraceFlink(Dialect):
    """Flink 2.2 SQL: backticks, doubled quotes and no backslash escapes in strings, Flink's types.

    Functions are read and printed by name: sqlglot's own readings of them (``LOG``, ``MOD``,
    ``EXTRACT`` in its variants) follow other engines. ``DIV`` and ``||`` are left as they are.
    """

    class Tokenizer(tokens.Tokenizer):
        """Strings and identifiers."""

        IDENTIFIERS: ClassVar = ["`"]
        STRING_ESCAPES: ClassVar = ["'"]
        IDENTIFIER_ESCAPES: ClassVar = ["`"]

        KEYWORDS: ClassVar = {
            **tokens.Tokenizer.KEYWORDS,
            "BYTES": TokenType.VARBINARY,
            "STRING": TokenType.TEXT,
            "TIMESTAMP_LTZ": TokenType.TIMESTAMPLTZ,
        }

    class Parser(parser.Parser):
        """Calls stay names with arguments."""

        FUNCTIONS: ClassVar = {}

    class Generator(generator.Generator):
        """Types as Flink spells them."""

        TYPE_MAPPING: ClassVar = {
            **generator.Generator.TYPE_MAPPING,
            exp.DataType.Type.TEXT: "STRING",
            exp.DataType.Type.VARBINARY: "BYTES",
            exp.DataType.Type.TIMESTAMPLTZ: "TIMESTAMP_LTZ",
        }
