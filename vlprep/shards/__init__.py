"""The Arrow stores: schemas, writer, reader, verification."""

from vlprep.shards.manifest import StoreSettings
from vlprep.shards.marks import ErrorInfo, Failure
from vlprep.shards.reader import Row, StoreReader
from vlprep.shards.status import Status
from vlprep.shards.store import Store, open_store
from vlprep.shards.writer import PartWriter

__all__ = ["ErrorInfo", "Failure", "PartWriter", "Row", "Status", "Store", "StoreReader", "StoreSettings", "open_store"]
