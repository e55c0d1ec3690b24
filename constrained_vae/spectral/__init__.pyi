from .comparison import compare_spectral as compare_spectral
from .partitions import BranchComparison as BranchComparison, SpectralComparison as SpectralComparison
from .random_walk import (
    affinity as affinity,
    eigengap as eigengap,
    embedding as embedding,
    overlap_matrix as overlap_matrix,
    spectrum as spectrum,
    walk as walk,
)
from .relaxation import FirstSplit as FirstSplit, first_split as first_split
