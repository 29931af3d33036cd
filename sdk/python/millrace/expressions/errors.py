"""The error of an expression that cannot be given one meaning."""

from millrace.errors import SpecError


class ExpressionError(SpecError):
    """An expression is refused; ``what`` quotes the part at fault, ``fix`` what works instead."""

    code = "expression_error"
