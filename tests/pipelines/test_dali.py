import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.pipelines import dali
from semiseg.pipelines.dali import steps_together
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.views import KINDS, Augmentation
from semiseg.pipelines.watch import Watch

UNLABELED = [name for name, kind in KINDS.items() if kind.windows]


@pytest.fixture(autouse=True)
def _needs_dali(request) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("nvidia.dali")


def tensors(windows) -> list[torch.Tensor]:
    return [windows.target, windows.labeled, *windows.unlabeled]


@pytest.fixture
def agree(photos, run):
    """`agree(kind, filter, device_id)`: ten steps of the two backends beside each other."""

    def check(kind: str, filter: str, device_id: int | None, *, other_decoder: bool = False, **changes) -> None:
        """Targets bit for bit; bilinear images within rounding; bicubic ones but for steep edges: resizers clip.

        Another decoder has another inverse DCT and another interpolation of chroma, a few grey levels here and there.
        """
        planner = photos.planner(kind, filter, **changes)
        host, ours = run(photos.host(), planner, 3), run(photos.dali(device_id=device_id), planner, 3)
        differences = []
        for _ in range(10):
            (_, a), (_, b) = next(host), next(ours)
            target, *images = [tensor.cpu() for tensor in tensors(b)]
            assert torch.equal(a.target, target)
            assert len(a.unlabeled) == len(b.unlabeled)
            for x, y in zip(tensors(a)[1:], images):
                assert x.shape == y.shape
                differences.append((x.int() - y.int()).abs().flatten())
        difference = torch.cat(differences).float()
        mean, largest, close = difference.mean(), difference.max(), (difference <= 1).float().mean()
        if other_decoder:
            assert (mean <= 1) & ((difference <= 3).float().mean() >= 0.99)
        elif filter != "cubic":
            assert (mean <= 0.15) & (largest <= 1 + (filter == "antialiased"))
        else:
            assert (mean <= 0.25) & (largest <= 20) & (close >= 0.999)

    return check


@pytest.mark.parametrize("filter", ["cubic", "antialiased", "linear"])
@pytest.mark.parametrize("kind", UNLABELED)
def test_cpu_operators_agree_with_host(agree, kind, filter) -> None:
    agree(kind, filter, None)


def test_cpu_operators_agree_with_host_on_padding_all_round(agree) -> None:
    published = Augmentation(filter="linear", crop_off_by_one=True, padding="centre")
    agree("plain", "linear", None, labeled=published, unlabeled=published)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("filter", ["cubic", "antialiased", "linear"])
@pytest.mark.parametrize("kind", UNLABELED)
def test_gpu_decoder_agrees_with_host(agree, kind, filter) -> None:
    agree(kind, filter, 0, other_decoder=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("filter", ["cubic", "linear"])
@pytest.mark.parametrize("kind", UNLABELED)
def test_gpu_operators_behind_the_cpu_decoder_agree_with_host(agree, kind, filter, monkeypatch) -> None:
    """What resizes and cuts is held to the bounds of the CPU: both read the same pixels."""
    decoders = pytest.importorskip("nvidia.dali.fn").decoders
    decode = decoders.image_slice
    monkeypatch.setattr(
        decoders, "image_slice", lambda *node, **options: decode(*node, **options | {"device": "cpu"}).gpu()
    )
    agree(kind, filter, 0)


@pytest.mark.parametrize("kind", ["pair", "mixed"])
def test_any_step_can_be_started_with(photos, run, kind) -> None:
    backend, planner = photos.dali(), photos.planner(kind)
    assert steps_together(planner(0)) > 1
    walk, jump = run(backend, planner), run(backend, planner, 5)
    for _ in range(5):
        next(walk)
    for _ in range(steps_together(planner(0)) + 1):
        (_, a), (_, b) = next(walk), next(jump)
        assert all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def test_windows_stay_as_long_as_they_are_held(photos, run) -> None:
    first, again = (run(photos.dali(), photos.planner("pair")) for _ in range(2))
    held = [tensors(next(first)[1]) for _ in range(40)]
    for expected in held:
        assert all(torch.equal(x, y) for x, y in zip(expected, tensors(next(again)[1]), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_processes_make_slices_of_one_batch(photos, run, kind) -> None:
    def windows(**options) -> list[torch.Tensor]:
        planner = photos.planner(kind, batch=2, unlabeled_batch=4, **options)
        return tensors(next(run(photos.dali(), planner, 2))[1])

    ranks = [windows(rank=rank, world=2) for rank in range(2)]
    for whole, *parts in zip(windows(), *ranks, strict=True):
        assert torch.equal(whole, torch.cat(parts))


def test_unlabelled_images_need_no_masks(photos, run) -> None:
    planner = photos.planner("pair", batch=0, unlabeled_batch=3)
    _, windows = next(run(photos.dali(records=[replace(record, mask=None) for record in photos.records]), planner))
    assert windows.labeled.shape == (0, 128, 128, 3)
    assert [view.shape for view in windows.unlabeled] == [(3, 128, 128, 3)] * 2


def test_files_are_read_beside_each_other(photos, run, monkeypatch) -> None:
    two, read = threading.Barrier(2, timeout=60), Watch.read

    def beside_another(watch, path) -> bytes:
        two.wait()
        return read(watch, path)

    expected = tensors(next(run(photos.dali(), photos.planner("pair", batch=4, unlabeled_batch=4)))[1])
    monkeypatch.setattr(Watch, "read", beside_another)
    now = tensors(next(run(photos.dali(), photos.planner("pair", batch=4, unlabeled_batch=4)))[1])
    assert all(torch.equal(x, y) for x, y in zip(expected, now, strict=True))


def test_of_turned_files_the_cut_alone_is_handed_over(photos, run, make_planner, monkeypatch) -> None:
    """Whole ones, decoded, would fill the memory: some thirty are on their way; and few are decoded at once."""
    turned = next(record for record in photos.records if record.image_mark)
    handed, decoding, most = [], [], []
    backend = photos.dali(records=[turned], threads=2)
    pixels, written = backend.watch.pixels, dali.pnm

    def decode(*arguments):
        decoding.append(None)
        most.append(len(decoding))
        try:
            return pixels(*arguments)
        finally:
            decoding.pop()

    monkeypatch.setattr(backend.watch, "pixels", decode)
    monkeypatch.setattr(dali, "pnm", lambda cut: handed.append(cut.shape[:2]) or written(cut))
    enlarged = Augmentation(scale="own", range=(2.0, 3.0))
    planner = make_planner([turned.size], "none", crop=128, batch=4, labeled=enlarged)
    plan, _ = next(run(backend, planner))
    assert set(map(tuple, plan.labeled.source.tolist())) <= set(handed)
    assert max(height * width for height, width in handed) < turned.height * turned.width / 2
    assert max(most) <= 2


@pytest.mark.parametrize(("content", "says"), [(None, "cannot be read"), (b"", "is empty")])
def test_a_file_that_is_gone_is_named(photos, run, tmp_path, content, says) -> None:
    gone = tmp_path / "gone.jpg"
    if content is not None:
        gone.write_bytes(content)
    records = [replace(record, image=gone, image_mark=None) for record in photos.records]
    with pytest.raises(UsageError, match=f"gone.jpg: {says}") as raised:
        next(run(photos.dali(records=records), photos.planner("none")))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("size", "says"), [(None, "cannot be decoded"), (20, "is 20x20 and was")])
def test_a_file_that_decoders_fail_on_is_named(photos, run, tmp_path, monkeypatch, size, says) -> None:
    def fail(*_):  # in DALI's place, whose errors may take the process with them
        raise RuntimeError("Failed to decode sample #3\nCurrent pipeline object is no longer valid.")

    monkeypatch.setattr("nvidia.dali.Pipeline.run", fail)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photos.records[0].image.read_bytes()[:2000])
    if size:
        Image.new("RGB", (size, size)).save(broken)
    records = [*photos.records[:-1], replace(photos.records[-1], image=broken)]
    with pytest.raises(UsageError, match=f"broken.jpg: {says}"):
        next(run(photos.dali(records=records), photos.planner("pair")))
    with pytest.raises(RuntimeError, match="sample #3"):
        next(run(photos.dali(), photos.planner("pair")))


def test_without_dali_the_command_to_install_it_is_named(photos, monkeypatch) -> None:
    monkeypatch.setattr(dali, "find_spec", lambda name: None if name == "nvidia.dali" else object())
    with pytest.raises(UsageError, match=r"pip install nvidia-dali-cuda\d+0"):
        photos.dali()


def test_a_batch_of_dali_s_holds_about_as_many_samples_whatever_the_step(photos) -> None:
    def samples(batch: int) -> int:
        return batch * steps_together(photos.planner("plain", batch=batch, unlabeled_batch=batch)(0))

    assert [samples(batch) for batch in (1, 2, 6, 8, 32, 40)] == [32, 32, 24, 32, 32, 40]


@pytest.mark.parametrize(
    ("threads", "streams", "device_id", "each"),
    [(0, 2, None, 16), (6, 2, None, 6), (0, 2, 0, 6), (0, 3, 0, 4), (6, 2, 0, 3), (1, 2, 0, 1)],
)
def test_streams_of_a_gpu_share_the_cores_without_those_that_are_busy(
    monkeypatch, threads, streams, device_id, each
) -> None:
    monkeypatch.setattr(dali, "cores", lambda: 16)
    assert dali.threads_each(threads, streams, device_id) == each


def test_on_few_cores_every_stream_has_a_thread(monkeypatch) -> None:
    monkeypatch.setattr(dali, "cores", lambda: 2)
    assert dali.threads_each(0, 2, 0) == 1


def test_outputs_of_a_gpu_are_copied_in_the_order_of_the_stream() -> None:
    """A tensor of DALI's on the CPU stands in, which takes no stream."""
    from nvidia.dali.tensors import TensorCPU

    values, asked = np.arange(24, dtype=np.uint8).reshape(2, 4, 3), []

    class OnGpu:
        def __init__(self):
            self.tensor = TensorCPU(values)

        def shape(self):
            return self.tensor.shape()

        def copy_to_external(self, pointer, stream, non_blocking):
            asked.append((stream.value, non_blocking))
            self.tensor.copy_to_external(pointer)

    tensor = dali.copied(OnGpu(), torch.device("cpu"), SimpleNamespace(cuda_stream=77))
    assert asked == [(77, True)]
    assert np.array_equal(tensor.numpy(), values)
