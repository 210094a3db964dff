import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines.decode import COLOUR, LABEL, read
from semiseg.pipelines.errors import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def test_images_are_rgb_as_stored_whatever_their_tag_says(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(PIXELS).save(tmp_path / "image.png", exif=exif)
    assert np.array_equal(read(tmp_path / "image.png", COLOUR, (4, 6)), PIXELS)


def test_masks_keep_their_values(tmp_path) -> None:
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "mask.png")
    assert np.array_equal(read(tmp_path / "mask.png", LABEL), PIXELS[..., 0])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"cannot be read \(No such file or directory\); restore it or run `semiseg prepare`"),
        (b"", "cannot be decoded any more; run `semiseg doctor`"),
        (b"no image", "cannot be decoded any more"),
        (PIXELS, r"is 4x6 and was 6x4 \(height x width\); run `semiseg prepare`"),
    ],
)
def test_a_file_that_is_not_what_was_prepared_is_named_in_one_line(tmp_path, content, says) -> None:
    path = tmp_path / "broken.png"
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"broken.png: {says}") as raised:
        read(path, COLOUR, (6, 4))
    assert "\n" not in str(raised.value)
