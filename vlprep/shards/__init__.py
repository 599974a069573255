"""The Arrow stores: schemas, writer, reader, verification."""
