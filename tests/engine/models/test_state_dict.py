import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from semiseg.engine.models import read_state_dict
from semiseg.pipelines.errors import UsageError


class Attack:
    def __reduce__(self):
        return print, ("executed",)


def test_only_plain_state_dicts_are_read(tmp_path, capsys):
    path = tmp_path / "file.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "monitor_best": np.round(np.float64(0.7123), 3)}, path)
    assert list(read_state_dict(path)) == ["a"]  # CAC's trainer writes its best score as a numpy number
    for content in (nn.Linear(2, 2), {"state_dict": {"a": torch.ones(2)}, "config": Attack()}):
        torch.save(content, path)
        with pytest.raises(UsageError, match="it holds objects") as error:
            read_state_dict(path)
        assert "trust" not in str(error.value)
    for content in (b"", b"hello", pickle.dumps(Attack(), protocol=2)):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"file\.pth: not a readable weights file"):
            read_state_dict(path)
    assert "executed" not in capsys.readouterr().out


def test_a_torch_file_of_other_bytes_is_refused(tmp_path):
    """Torch would read it: it does not look at the archive's checksums."""
    path = tmp_path / "file.pth"
    weights = torch.linspace(1, 2, 64)
    torch.save({"a": weights}, path)
    whole = path.read_bytes()
    place = whole.index(weights.numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert not torch.equal(torch.load(path)["a"], weights)
    with pytest.raises(UsageError, match=r"file\.pth: .*bad checksum of .*damaged"):
        read_state_dict(path)
    path.write_bytes(whole)
    assert torch.equal(read_state_dict(path)["a"], weights)


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_an_export_is_called_one(tmp_path, suffix):
    (tmp_path / f"best{suffix}").touch()
    with pytest.raises(UsageError, match="is an export, of which no weights are read; pass the run"):
        read_state_dict(tmp_path / f"best{suffix}")


def test_safetensors_are_read(tmp_path):
    save_file({"module.a": torch.ones(2)}, tmp_path / "file.safetensors")
    assert torch.equal(read_state_dict(tmp_path / "file.safetensors")["a"], torch.ones(2))
    (tmp_path / "file.safetensors").write_bytes(b"hello")
    with pytest.raises(UsageError, match="not a readable weights file"):
        read_state_dict(tmp_path / "file.safetensors")
