"""The SQL grammar: sqlglot's parser with everything taken out that the language does not have.

sqlglot knows hundreds of functions, with aliases and rewrites of its own (``IFNULL`` silently
becomes ``COALESCE``). Here every call stays a name with arguments, so that
``millrace.expressions.parse`` alone decides what exists.
"""

from typing import ClassVar

from sqlglot import TokenType, exp, parser
from sqlglot.dialects.dialect import Dialect


class ExpressionGrammar(Dialect):
    """Parses one expression into sqlglot nodes; see the module's docstring."""

    class Parser(parser.Parser):
        """The reduced parser."""

        FUNCTIONS: ClassVar = {}
        NO_PAREN_FUNCTIONS: ClassVar = {}
        COLUMN_OPERATORS: ClassVar = {}
        NO_PAREN_FUNCTION_PARSERS: ClassVar = {
            "CASE": parser.Parser.NO_PAREN_FUNCTION_PARSERS["CASE"]
        }
        FUNCTION_PARSERS: ClassVar = {
            "CAST": lambda self: self.parse_conversion(),
            "EXTRACT": lambda self: self.parse_extraction(),
        }

        def parse_conversion(self) -> exp.Expr:
            """Parse ``x AS type)`` after ``CAST(``; the type is kept as its text."""
            this = self._parse_disjunction()
            if not self._match(TokenType.ALIAS):
                self.raise_error("CAST is written CAST(x AS type)")
            name = self._parse_word()
            if self._match(TokenType.L_PAREN):
                numbers = self._parse_csv(self._parse_number)
                name += f"({','.join(str(n.this) for n in numbers)})"
                self._match_r_paren()
            self._expect_closing("CAST(x AS type)")
            return self.expression(exp.Cast(this=this, to=exp.Var(this=name)))

        def parse_extraction(self) -> exp.Expr:
            """Parse ``part FROM x)`` after ``EXTRACT(``."""
            name = self._parse_word()
            if not self._match(TokenType.FROM):
                self.raise_error("EXTRACT is written EXTRACT(part FROM x)")
            this = self._parse_disjunction()
            self._expect_closing("EXTRACT(part FROM x)")
            return self.expression(exp.Extract(this=exp.Var(this=name), expression=this))

        def _parse_word(self) -> str:
            if not self._curr:
                self.raise_error("the expression ends early")
            self._advance()
            return str(self._prev.text)

        def _expect_closing(self, form: str) -> None:
            # The caller takes the parenthesis, but would not miss it.
            if not self._curr or self._curr.token_type != TokenType.R_PAREN:
                self.raise_error(f"missing parenthesis; write {form}")
