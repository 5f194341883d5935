"""Makes the classes of messages from their descriptors, in a pool of their own.

In the pool that all of Python shares, the same messages of a client's library in the same process would be refused.
"""

import base64
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from gateway.surfaces.oip.proto.encoded import DESCRIPTORS

_pool = DescriptorPool()
for _file in FileDescriptorSet.FromString(base64.b64decode(DESCRIPTORS)).file:
    _pool.AddSerializedFile(_file.SerializeToString())


def classes_of(file: str) -> dict[str, Any]:
    """Return the classes of a file's messages by their names."""
    return {
        name: GetMessageClass(message) for name, message in _pool.FindFileByName(file).message_types_by_name.items()
    }


def service(name: str) -> ServiceDescriptor:
    """Return what a service consists of."""
    return _pool.FindServiceByName(name)
