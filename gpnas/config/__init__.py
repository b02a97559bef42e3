"""Space files: their schema, and how one is read.

A space file (YAML) says what is searched, how each architecture is trained, and how much of it is
granted; `docs/spaces.md` describes one and `search_spaces/drn.yaml` is a commented example. Every
mistake in one is a `SpaceError` whose line names the file, the line, the rule and the value.
"""

from gpnas.config.reading import find_space as find_space
from gpnas.config.reading import load_space as load_space
from gpnas.config.reading import read_recipe_file as read_recipe_file
from gpnas.config.reading import read_space_file as read_space_file
from gpnas.config.schema import CameraSettings as CameraSettings
from gpnas.config.schema import Limits as Limits
from gpnas.config.schema import RecipeSettings as RecipeSettings
from gpnas.config.schema import Scale as Scale
from gpnas.config.schema import SearchSettings as SearchSettings
from gpnas.config.schema import SpaceFile as SpaceFile
