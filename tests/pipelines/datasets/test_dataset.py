from semiseg.pipelines.datasets.dataset import voc_colours


def test_voc_colours():
    colours = voc_colours(256)
    assert colours[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert colours[20] == (0, 64, 128)
    assert colours[255] == (224, 224, 192)  # the border of the palette masks
    assert len(set(colours)) == 256
