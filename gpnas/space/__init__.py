"""Search spaces: families of networks with axes, enumerated without listing them as objects."""

from gpnas.space.axes import Axis as Axis
from gpnas.space.axes import CategoricalAxis as CategoricalAxis
from gpnas.space.axes import Column as Column
from gpnas.space.axes import Family as Family
from gpnas.space.axes import IntegerAxis as IntegerAxis
from gpnas.space.search_space import SearchSpace as SearchSpace
