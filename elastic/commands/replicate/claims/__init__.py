"""The paper's claims, each computed from graded answers by a rule that was fixed before the run."""

from elastic.commands.replicate.claims.answers import Answers
from elastic.commands.replicate.claims.listed import claims
from elastic.commands.replicate.claims.rule import Claim, Comparison, decide

__all__ = ["Answers", "Claim", "Comparison", "claims", "decide"]
