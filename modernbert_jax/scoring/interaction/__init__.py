"""MaxSim of late interaction (Khattab and Zaharia 2020) without the array of all token pairs.

The score of a query and a document is the sum, over the query's tokens, of the largest dot product
with a token of the document. Texts are packed in rows, several to a row. Implementations compute
blocks of products and keep only their maxima; the backward pass computes them again.
"""

from .choice import IMPLEMENTATIONS, check_name, choose
from .numbering import Texts, reading_order
from .scores import maxsim, paired_maxsim

__all__ = [
    "IMPLEMENTATIONS",
    "Texts",
    "check_name",
    "choose",
    "maxsim",
    "paired_maxsim",
    "reading_order",
]
