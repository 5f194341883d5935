"""Devices: what is read of them, who gets which, who goes for whom, and what running out of memory looks like."""

# ruff: noqa: N802, D102 - the names are NVML's, and so is what they do

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.devices.gpus import Gpus, environment_for, load_nvml, visible
from backends.devices.placing import Clearing, NoPlace, Placement, clear, place
from backends.devices.shortage import is_shortage
from backends.devices.view import Device, Held, Need

GIB = 2**30


class NoDriverError(Exception):
    """What the fake driver raises."""


@dataclass
class Memory:
    """One GPU's memory, in bytes."""

    total: int
    free: int


@dataclass
class Process:
    """What one process holds of one GPU; None where the driver does not tell."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815 - NVML's name


@dataclass
class FakeNvml:
    """A driver with GPUs of plain values; `broken` ones cannot be read, and without `driver` nothing can."""

    gpus: list[Memory] = field(default_factory=list)
    driver: bool = True
    broken: set[int] = field(default_factory=set)
    NVMLError: type[Exception] = NoDriverError
    reads: int = 0
    processes: dict[int, list[Process]] = field(default_factory=dict)

    def nvmlInit(self) -> None:
        if not self.driver:
            raise NoDriverError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"Fake {handle}"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Process]:
        if handle in self.broken:
            raise NoDriverError("GPU is lost")
        return self.processes.get(handle, [])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Memory:
        self.reads += 1
        if handle in self.broken:
            raise NoDriverError("GPU is lost")
        return self.gpus[handle]


def found(nvml: FakeNvml, wanted: tuple[int, ...] | None = None, **environ: str) -> Gpus | None:
    """Look for GPUs with this driver."""
    return Gpus.find(wanted, environ, lambda: nvml)


def view(*free_gib: float, share: float = 1.0) -> list[Device]:
    """Make devices of 24 GiB with so much free on each."""
    return [Device(i, "Fake", int(24 * GIB * share), int(each * GIB)) for i, each in enumerate(free_gib)]


def held(replica: str, *devices: int, gib: float = 8, **state: bool) -> Held:
    """Make what a replica holds."""
    return Held(replica, devices, int(gib * GIB), **state)


def test_memory_is_read_as_it_really_is():
    """What others hold is not free, whatever our own books say."""
    gpus = found(FakeNvml([Memory(24 * GIB, 10 * GIB), Memory(24 * GIB, 20 * GIB)]))
    assert gpus is not None
    assert gpus.read() == (Device(0, "Fake 0", 24 * GIB, 10 * GIB), Device(1, "Fake 1", 24 * GIB, 20 * GIB))


@pytest.mark.parametrize("nvml", [FakeNvml(), FakeNvml([Memory(GIB, GIB)], driver=False)])
def test_without_a_gpu_or_a_driver_there_are_no_devices(nvml):
    """Neither is an error: models run on the CPU."""
    assert found(nvml) is None


def test_a_gpu_that_falls_off_the_bus_is_left_out():
    """Nothing more is started there, and the others go on."""
    nvml = FakeNvml([Memory(GIB, GIB), Memory(GIB, GIB)])
    gpus = found(nvml)
    assert gpus is not None
    nvml.broken.add(0)
    assert [device.index for device in gpus.read()] == [1]


def test_only_the_wanted_ones_are_used():
    """Indices of the config choose; what the machine has not got is no device."""
    gpus = found(FakeNvml([Memory(GIB, GIB)] * 3), (2, 7))
    assert gpus is not None
    assert [device.index for device in gpus.read()] == [2]


@pytest.mark.parametrize(
    ("said", "seen"),
    [({}, [0, 1, 2]), ({"CUDA_VISIBLE_DEVICES": "2,0"}, [0, 2]), ({"CUDA_VISIBLE_DEVICES": ""}, [])],
)
def test_what_our_own_environment_hides_is_not_used(said, seen):
    """Whoever started us may have given us only some of the machine's GPUs."""
    assert visible(said, range(3)) == seen


def test_a_worker_counts_gpus_as_we_do():
    """Left to itself CUDA puts the fastest first, and NVML counts by address."""
    assert environment_for((1, 3)) == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,3"}


@pytest.mark.parametrize("freed_gib", [8.0, 6.5])
def test_memory_is_waited_for_until_it_has_come_back(freed_gib, monkeypatch):
    """A driver takes its time, and keeps a little."""
    monkeypatch.setattr("backends.devices.gpus.RETURN_POLL_S", 0.001)

    async def run() -> None:
        nvml = FakeNvml([Memory(24 * GIB, 10 * GIB)])
        gpus = found(nvml)
        assert gpus is not None
        waiting = asyncio.create_task(gpus.until_returned((0,), 8 * GIB, {0: 10 * GIB}))
        while nvml.reads < 3:  # noqa: ASYNC110 - NVML has nothing to wait for
            await asyncio.sleep(0.001)
        assert not waiting.done()
        nvml.gpus[0].free += int(freed_gib * GIB)
        assert await waiting

    asyncio.run(run())


def test_memory_that_somebody_else_took_is_not_waited_for_for_ever(monkeypatch):
    """After some seconds what is read counts, and nothing else."""
    monkeypatch.setattr("backends.devices.gpus.RETURN_DEADLINE_S", 0.01)
    gpus = found(FakeNvml([Memory(24 * GIB, 10 * GIB)]))
    assert gpus is not None
    assert not asyncio.run(gpus.until_returned((0,), 8 * GIB, {0: 10 * GIB}))


def test_the_smallest_hole_that_fits_is_filled():
    """So a large one is there when a large model comes."""
    placed = place(view(20, 9, 12), [], Need(1, 8 * GIB))
    assert placed == Placement((1,), "1 GPU with 8192 MiB: 9216 MiB left on GPU 1")


def test_several_models_share_a_gpu_and_its_budget():
    """By the books they have what the share leaves, however much is free."""
    devices = view(24, share=0.9)
    first = held("a-1", 0, gib=8)
    second = held("b-1", 0, gib=8)
    assert isinstance(place(devices, [first], Need(1, 8 * GIB)), Placement)
    assert place(devices, [first, second], Need(1, 8 * GIB)) == NoPlace(
        "needs 1 GPU with 8192 MiB; GPU 0 has 5734 MiB left"
    )


def test_what_others_hold_is_no_room():
    """Memory that is not free is not given away, though our own books be empty."""
    assert isinstance(place(view(4), [], Need(1, 8 * GIB)), NoPlace)


def test_a_start_under_way_has_its_memory_already():
    """It has not taken it yet, so it reads as free."""
    coming = held("a-1", 0, gib=8, is_coming=True)
    assert isinstance(place(view(12), [coming], Need(1, 8 * GIB)), NoPlace)
    assert isinstance(place(view(12), [replace(coming, is_coming=False)], Need(1, 8 * GIB)), Placement)


def test_a_model_may_need_several_gpus():
    """Each of them has room for its part, or there is no place."""
    assert place(view(10, 2, 9), [], Need(2, 8 * GIB)) == Placement(
        (0, 2), "2 GPUs with 8192 MiB each: 10240 MiB left on GPU 0, 9216 MiB left on GPU 2"
    )
    refused = place(view(24), [], Need(2, 8 * GIB))
    assert isinstance(refused, NoPlace)
    assert refused.is_final
    assert refused.why == "needs 2 GPUs with 8192 MiB each; there is GPU 0 (Fake) with 24576 MiB"


def test_those_that_give_way_first_go_and_no_more_than_must():
    """Idle ones are named in their order; whoever is too small to help stays."""
    devices = view(0, 0)
    holders = [held("small-1", 0, gib=2), held("b-1", 1, gib=8), held("c-1", 0, gib=8)]
    assert clear(devices, holders, holders, Need(1, 8 * GIB)) == Clearing(("b-1",), (1,))
    assert clear(devices, holders, [holders[0], holders[2]], Need(1, 8 * GIB)) == Clearing(("c-1",), (0,))
    assert isinstance(clear(devices, holders, holders[:1], Need(1, 8 * GIB)), NoPlace)


def test_who_leaves_already_is_waited_for():
    """Nobody else is sent away for memory that is about to be free."""
    holders = [held("a-1", 0, is_leaving=True), held("b-1", 0)]
    assert clear(view(0), holders, holders[1:], Need(1, 8 * GIB)) == Clearing((), (0,))


def test_a_replica_on_two_gpus_clears_both():
    """It goes once, and counts on each."""
    big = [held("big-1", 0, 1)]
    assert clear(view(0, 0), big, big, Need(2, 8 * GIB)) == Clearing(("big-1",), (0, 1))


SOME_HELD = st.builds(
    Held,
    st.uuids().map(str),
    st.sets(st.integers(0, 3), min_size=1, max_size=3).map(lambda found: tuple(sorted(found))),
    st.integers(1, 12 * GIB),
    st.booleans(),
    st.booleans(),
)


@given(
    st.lists(st.integers(0, 24 * GIB), min_size=1, max_size=4),
    st.lists(SOME_HELD, max_size=6),
    st.integers(1, 3),
    st.integers(1, 24 * GIB),
    st.floats(0.1, 1.0),
)
def test_nobody_is_ever_placed_over_the_budget_or_what_is_free(free, holders, count, size, share):
    """Whatever is held and free: a placement fits by the books and by the reading, and a clearing makes one fit."""
    devices = [Device(i, "Fake", int(24 * GIB * share), each) for i, each in enumerate(free)]
    need = Need(count, size)
    placed = place(devices, holders, need)
    if isinstance(placed, Placement):
        assert len(set(placed.devices)) == count
        for index in placed.devices:
            booked = sum(each.bytes_each for each in holders if index in each.devices)
            coming = sum(each.bytes_each for each in holders if index in each.devices and each.is_coming)
            assert booked + size <= devices[index].budget_bytes
            assert coming + size <= free[index]
    idle = [each for each in holders if not each.is_leaving and not each.is_coming]
    cleared = clear(devices, holders, idle, need)
    if isinstance(cleared, Clearing):
        gone = [each for each in holders if each.is_leaving or each.replica in cleared.replicas]
        after = [
            replace(device, free_bytes=device.free_bytes + sum(e.bytes_each for e in gone if device.index in e.devices))
            for device in devices
        ]
        rest = [each for each in holders if each not in gone]
        assert isinstance(place(after, rest, need), Placement)
    else:
        assert not isinstance(placed, Placement)


@pytest.mark.parametrize(
    "said",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA failure 2: out of memory",
        "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 8192",
        "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "MemoryError",
        "llama-server was ended by signal 9",
        "the worker ended with status -9",
        "ValueError: No available memory for the cache blocks.",
    ],
)
def test_running_out_of_memory_is_known_by_what_was_said_last(said):
    """Each engine has words of its own for it, and the kernel says nothing but 9."""
    assert is_shortage(f"while it loaded the model, it failed\nits last lines:\n{said}\n")


@pytest.mark.parametrize("said", ["exited with 1", "No such file or directory", "not ready after 9 s", "status 90"])
def test_other_failures_are_no_shortage(said):
    """Nobody is sent away for a model that cannot start anyway."""
    assert not is_shortage(said)


@pytest.mark.gpu
def test_a_real_gpu_is_read():
    """Where there is one: its memory is what the driver says."""
    gpus = Gpus.find(None, {}, load_nvml)
    if gpus is None:
        pytest.skip("no GPU here: NVML finds none")
    for device in gpus.read():
        assert 0 < device.free_bytes <= device.budget_bytes
