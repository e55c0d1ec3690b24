from .comparison import (
    BranchComparison as BranchComparison,
)
from .comparison import (
    FirstSplit as FirstSplit,
)
from .comparison import (
    SpectralComparison as SpectralComparison,
)
from .comparison import (
    compare_spectral as compare_spectral,
)
from .comparison import (
    first_split as first_split,
)
from .random_walk import (
    affinity as affinity,
)
from .random_walk import (
    eigengap as eigengap,
)
from .random_walk import (
    embedding as embedding,
)
from .random_walk import (
    overlap_matrix as overlap_matrix,
)
from .random_walk import (
    spectrum as spectrum,
)
from .random_walk import (
    walk as walk,
)
