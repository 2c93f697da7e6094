"""Feature visualisation: images optimised for units of any network, beside the real images that these answer to."""

from prisma.analysis.attribution.questions import Neuron
from prisma.analysis.readings import Objective
from prisma.features.accentuation import accentuate
from prisma.features.colors import Colors
from prisma.features.copies import Alignment, Diversity, Interpolation
from prisma.features.cppn import CPPN
from prisma.features.images import FFT, Pixels, Pyramid
from prisma.features.maco import MACO, natural_pictures
from prisma.features.objectives import Channel, Direction, Near, OfFunction, OfLogits
from prisma.features.paths import path_check
from prisma.features.references import Caricature, Content, Distance, Style, TotalVariation
from prisma.features.robustness import PLAIN, Robustness
from prisma.features.visualize import Features, visualize
from prisma.pretrained.networks import Network

__all__ = [
    "CPPN",
    "FFT",
    "MACO",
    "PLAIN",
    "Alignment",
    "Caricature",
    "Channel",
    "Colors",
    "Content",
    "Direction",
    "Distance",
    "Diversity",
    "Features",
    "Interpolation",
    "Near",
    "Network",
    "Neuron",
    "Objective",
    "OfFunction",
    "OfLogits",
    "Pixels",
    "Pyramid",
    "Robustness",
    "Style",
    "TotalVariation",
    "accentuate",
    "natural_pictures",
    "path_check",
    "visualize",
]
