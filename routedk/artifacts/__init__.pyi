from .recipe import Recipe as Recipe
from .recipe import content_hash as content_hash
from .store import Artifact as Artifact
from .store import ArtifactStore as ArtifactStore
from .store import check_output as check_output
from .store import copy_artifact as copy_artifact
