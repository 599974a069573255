"""What is in a user's folder: items, captions, narration."""

from vlprep.datasets.dataset import Dataset, open_dataset
from vlprep.datasets.inspection import Inspection, inspect
from vlprep.datasets.items import Item
from vlprep.datasets.narration import Segment

__all__ = ["Dataset", "Inspection", "Item", "Segment", "inspect", "open_dataset"]
