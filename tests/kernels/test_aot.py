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


TRITON = () if _triton.triton is None else tuple(map(int, _triton.triton.__version__.split(".")[:2]))


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
        "cut_windows", "cutmix", "directional_contrast", "photometric", "pseudo_label", "upsample",
        "upsample_confusion", "upsample_cross_entropy", "upsample_mse",
    }  # fmt: skip
    wrong = []
    for row in rows:
        if row.error or row.spill_bytes > largest_spill(row) or not row.registers:
            wrong.append(row)
    assert not wrong, "\n" + aot.table(wrong)


def largest_spill(row):
    """Bytes that a kernel may spill: what its loops do not need is put aside before them."""
    if row.constants.get("CHANNELS") == 256:  # of gradient, which fill the registers
        return 160
    return 16 if row.kernel == "finish_kernel" and TRITON < (3, 7) else 0


def test_threads_of_upsampling_kernels_exchange_nothing_inside_loops(rows):
    """Each owns its pixels: a shuffle or barrier in a loop says that the compiler has dealt them out otherwise."""
    found = [row for row in rows if row.kernel in ("loss", "mse", "classify", "count", "interpolate")]
    found += [row for row in rows if (row.operator, row.kernel) == ("upsample", "gather")]
    assert {row.kernel for row in found} == {"loss", "mse", "classify", "count", "interpolate", "gather"}
    wrong = [row for row in found if row.loop_shuffles or row.loop_barriers]
    assert not wrong, "\n" + aot.table(wrong)


def test_exchanges_inside_loops_are_found(rows):
    """Active rows are counted over threads in a loop, tiles of scores are waited for."""
    assert all(row.loop_shuffles for row in rows if row.kernel == "compact_kernel")
    assert all(row.loop_barriers for row in rows if row.kernel == "score_kernel")


def test_lines_between_a_label_and_the_last_jump_back_to_it_are_a_loop():
    ptx = """
    mov.u32 a;
$L__BB0_1: // in a comment
    shfl.sync b;
    @%p1 bra $L__BB0_3;
    bar.sync c;
    @%p2 bra $L__BB0_1;
$L__BB0_3:
    bar.sync d;
    bra.uni $L__BB0_4;
$L__BB0_4:
    ret;
"""
    inside = [line.split()[0] for line in aot.loops(ptx)]
    assert inside == ["$L__BB0_1:", "shfl.sync", "@%p1", "bar.sync"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("count", {"low_height", "low_width", "full_height", "full_width", "block_columns", "block_count"}),
        ("classify", {"low_height", "low_width", "full_height", "full_width", "block_columns", "block_count"}),
        ("loss", {"low_height", "low_width", "full_height", "full_width", "block_columns", "block_count"}),
        ("transform", {"height", "width"}),
    ],
)
def test_sizes_of_images_select_no_variant(name, sizes):
    """Evaluation meets many sizes; each variant takes seconds to compile while nothing else runs."""
    kernel = next(kernel for kernel, *_ in aot.recorded(90) if kernel.__name__.strip("_") == name)
    free = {parameter.name for parameter in kernel.params if parameter.do_not_specialize}
    assert free >= sizes
    assert not free & {"classes", "logits", "logits_a", "images"}


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
