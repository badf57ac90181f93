"""TGI's rules for how many devices a worker spans."""

import pytest
from backplane_core.backend import Device
from backplane_core.errors import SetupError
from backplane_launcher.settings import LaunchSettings
from backplane_launcher.sharding import num_shard, visible_devices

THREE = tuple(Device(name=name) for name in ("a", "b", "c"))


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, 3),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, 3),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, 0),
        ({"ZE_AFFINITY_MASK": "0,1,2,3"}, 4),
        ({"CUDA_VISIBLE_DEVICES": "0", "NVIDIA_VISIBLE_DEVICES": "all"}, 1),
        ({"NVIDIA_VISIBLE_DEVICES": "0,1", "ZE_AFFINITY_MASK": "0"}, 2),
    ],
)
def test_visible_devices(environ, count):
    assert visible_devices(environ, THREE) == count


@pytest.mark.parametrize(
    ("sharded", "asked", "environ", "shards"),
    [
        (None, None, {}, None),
        (None, None, {"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        (None, None, {"CUDA_VISIBLE_DEVICES": ""}, None),
        (None, 4, {"CUDA_VISIBLE_DEVICES": "0,1"}, 4),
        ("false", None, {"CUDA_VISIBLE_DEVICES": "0,1"}, 1),
        ("false", 2, {}, 2),
        ("true", None, {}, 3),
        ("true", None, {"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        ("true", 4, {}, 4),
    ],
)
def test_a_backend_that_spans_devices(sharded, asked, environ, shards):
    settings = LaunchSettings(sharded=sharded, num_shard=asked)
    assert num_shard(settings, environ, found=THREE, spans_devices=True) == shards


@pytest.mark.parametrize(
    ("sharded", "asked", "shards"),
    [(None, None, None), (None, 1, None), ("false", None, None), (None, 2, 2), ("true", None, 2)],
)
def test_a_backend_that_does_not_is_told_only_what_it_must_refuse(sharded, asked, shards):
    settings = LaunchSettings(sharded=sharded, num_shard=asked)
    environ = {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert num_shard(settings, environ, found=THREE, spans_devices=False) == shards


@pytest.mark.parametrize(
    ("environ", "found"),
    [({}, THREE[:1]), ({}, ()), ({"CUDA_VISIBLE_DEVICES": "2"}, THREE)],
)
def test_sharded_wants_two_devices(environ, found):
    settings = LaunchSettings(sharded="true")
    with pytest.raises(SetupError, match="--sharded true wants two devices at least"):
        num_shard(settings, environ, found=found, spans_devices=True)
