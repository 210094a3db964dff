"""What the compiler makes of the kernels, without a GPU: nothing spilled, tensor cores where they matter."""

import dataclasses
import json
import subprocess
import sys

import pytest

from semiseg.kernels import _triton, aot

pytestmark = [
    pytest.mark.skipif(_triton.triton is None, reason="Triton is not installed"),
    pytest.mark.skipif(_triton.INTERPRETED, reason="Triton's interpreter compiles nothing"),
]


@pytest.fixture(scope="module")
def rows():
    return aot.rows([90])


def test_half_precision_contrast_uses_tensor_cores_and_spills_nothing(rows):
    products = [row for row in rows if row.kernel in ("score_kernel", "negatives_kernel")]
    for dtype in ("fp16", "bf16"):
        halves = [row for row in products if row.dtypes[0] == dtype and row.constants["CHANNELS"] == 128]
        assert {row.kernel for row in halves} == {"score_kernel", "negatives_kernel"}
        for row in halves:
            assert (row.tensor_cores, row.spill_bytes) == ("wgmma", 0), row


def test_every_kernel_compiles_and_hardly_spills(rows):
    assert {row.operator for row in rows} >= {
        "cutmix", "directional_contrast", "photometric", "pseudo_label", "upsample_confusion", "upsample_cross_entropy",
        "upsample_mse",
    }  # fmt: skip
    wrong = []
    for row in rows:
        # 256 channels of gradient fill the registers: what the loops do not need is put aside before them.
        allowed = 160 if row.constants.get("CHANNELS") == 256 else 0
        if row.error or row.spill_bytes > allowed or not row.registers:
            wrong.append(row)
    assert not wrong, "\n" + aot.table(wrong)


def test_command_prints_one_json_document_and_no_warning():
    command = [sys.executable, "-m", "semiseg.kernels.aot", "--json", "--arch", "80", "--kernel", "photometric"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert document["triton"] == _triton.triton.__version__
    assert document["rows"]
    for row in document["rows"]:
        assert set(row) == {field.name for field in dataclasses.fields(aot.Row)}
        assert (row["operator"], row["architecture"], row["error"]) == ("photometric", 80, None)
    assert "arn" not in done.stderr
    assert "compiled in" in done.stderr


def test_a_kernel_that_does_not_compile_fails_the_command(monkeypatch, capsys):
    broken = aot.Row("cutmix", "mix", ["fp32"], {"ROWS": 8, "boxes": None}, 4, 2, 90, error="CompilationError: no")
    monkeypatch.setattr(aot, "rows", lambda *_: [broken])
    assert aot.main(["--arch", "90"]) == 1
    head, line = capsys.readouterr().out.splitlines()
    assert line.index("sm_90") == head.index("arch")
    assert "CompilationError: no" in line


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--arch", "91"], "unknown architecture 91"), (["--kernel", "no"], "unknown kernel no")]
)
def test_wrong_calls_are_one_line(arguments, message, capsys):
    assert aot.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("name", "value", "message"), [("triton", None, "not installed"), ("INTERPRETED", True, "INTERPRET")]
)
def test_where_nothing_can_be_compiled(name, value, message, monkeypatch, capsys):
    monkeypatch.setattr(_triton, name, value)
    assert aot.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
