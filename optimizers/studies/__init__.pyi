from .grid import StudyGrid as StudyGrid
from .grid import read_grid as read_grid
from .verb import PaperConfig as PaperConfig
from .verb import study_paper as study_paper
