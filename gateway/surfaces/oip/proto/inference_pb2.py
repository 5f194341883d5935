"""The messages of inference.proto; their types are in the file of the same name that ends in `.pyi`."""

from gateway.surfaces.oip.proto.classes import classes_of

globals().update(classes_of("inference.proto"))
