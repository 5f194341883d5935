"""The messages of gRPC: their numbers are those of the official client's, and the generated files are up to date."""

import base64
from pathlib import Path

import grpc_health.v1.health_pb2 as official_health
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message_factory import GetMessageClass
from tritonclient.grpc import service_pb2 as official

from gateway.surfaces.oip.grpc_server import HEALTH, INFERENCE
from gateway.surfaces.oip.proto.classes import service
from gateway.surfaces.oip.proto.encoded import DESCRIPTORS
from scripts.make_messages import HOME, compiled


def wire(field: FieldDescriptor) -> tuple[object, ...]:
    """Return what of a field is on the wire, or what code reads it by."""
    kind = field.message_type.full_name if field.message_type else field.enum_type and field.enum_type.full_name
    oneof = field.containing_oneof and field.containing_oneof.name
    return field.number, field.type, field.is_repeated, kind, oneof


def differences(ours: Descriptor, theirs: Descriptor, seen: set[str]) -> list[str]:
    """List what a message of ours, and whatever it holds, has otherwise than the official one."""
    if ours.full_name in seen:
        return []
    seen.add(ours.full_name)
    found = []
    for name, field in ours.fields_by_name.items():
        other = theirs.fields_by_name.get(name)
        if other is None or wire(field) != wire(other):
            found.append(f"{ours.full_name}.{name}")
        elif field.message_type is not None:
            found += differences(field.message_type, other.message_type, seen)
        elif field.enum_type is not None:
            values = {value.name: value.number for value in other.enum_type.values}
            found += [value.name for value in field.enum_type.values if values.get(value.name) != value.number]
    return found


@pytest.mark.parametrize(
    ("name", "file"), [(INFERENCE, official.DESCRIPTOR), (HEALTH, official_health.DESCRIPTOR)], ids=["oip", "health"]
)
def test_every_call_and_field_is_that_of_the_official_clients(name: str, file: FileDescriptor):
    """Each call of ours has the official one's messages, and each of their fields its number, type and place."""
    theirs = file.services_by_name[name.rpartition(".")[2]]
    seen: set[str] = set()
    for method in service(name).methods:
        other = theirs.methods_by_name[method.name]
        streams = (method.client_streaming, method.server_streaming)
        assert streams == (other.client_streaming, other.server_streaming)
        assert differences(method.input_type, other.input_type, seen) == []
        assert differences(method.output_type, other.output_type, seen) == []
    # Their health service has a call more, which lists services; of theirs for inference none is missing.
    missing = set(theirs.methods_by_name) - {method.name for method in service(name).methods}
    assert missing <= {"List"}


@pytest.mark.parametrize("message", ["ModelStatisticsResponse", "ModelConfigResponse", "ModelInferRequest"])
def test_a_message_is_read_by_the_other(message: str):
    """What our class writes the official one reads."""
    ours = GetMessageClass(service(INFERENCE).file.message_types_by_name[message])()
    for field in ours.DESCRIPTOR.fields:
        if field.message_type is None and not field.is_repeated:
            setattr(ours, field.name, "x")

    theirs = getattr(official, message).FromString(ours.SerializeToString())
    assert theirs.SerializeToString() == ours.SerializeToString()


def test_generated_files_are_up_to_date(tmp_path: Path):
    """The descriptors and types in the repository are those of the `.proto` files."""
    fresh = FileDescriptorSet.FromString(compiled(tmp_path))

    assert FileDescriptorSet.FromString(base64.b64decode(DESCRIPTORS)) == fresh
    assert {path.name for path in tmp_path.iterdir()} == {"inference_pb2.pyi", "health_pb2.pyi"}
    for path in tmp_path.iterdir():
        assert (HOME / path.name).read_text() == path.read_text()
