"""How good a bundle is: the paper's Table 1 for its networks, with intervals and ranks."""

from gpnas.evaluation.keeping import keep as keep
from gpnas.evaluation.keeping import kept as kept
from gpnas.evaluation.measuring import evaluate as evaluate
from gpnas.evaluation.measuring import evaluation_pairs as evaluation_pairs
from gpnas.evaluation.results import Evaluation as Evaluation
from gpnas.evaluation.results import Row as Row
from gpnas.evaluation.results import to_markdown as to_markdown
from gpnas.evaluation.statistics import bootstrap_intervals as bootstrap_intervals
from gpnas.evaluation.statistics import ranks as ranks
