from .base import Source as Source
from .convert import Report as Report
from .convert import convert as convert
from .families import FAMILIES as FAMILIES
from .reading import read as read
