"""Which mask is of which picture, by their names."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from semiseg.pipelines.datasets.pairs import called_after, masks_among, paired


@pytest.mark.parametrize(
    "end", ["_mask", "-mask", ".mask", "_masks", "_label", "_labels", "_seg", "_gt", "-Annotation"]
)
def test_masks_beside_pictures(end):
    names = ["day/p.jpg", f"day/p{end}.png", f"q{end}.png", "street_label.jpg", f"p{end}.png"]
    assert masks_among(names) == {f"day/p{end}.png": "day/p.jpg"}


def test_masks_in_folders():
    names = ["p.jpg", "masks/p.png", "masks/x.png", "a/images/q.jpg", "a/labels/q.png", "b/labels/bottle.jpg"]
    names += ["out/masks/p.png", "c/label/day/r.jpg", "c/day/r.jpg"]
    pairs = {"masks/p.png": "p.jpg", "a/labels/q.png": "a/images/q.jpg", "c/label/day/r.jpg": "c/day/r.jpg"}
    assert masks_among(names) == {"masks/x.png": None, **pairs}


def test_masks_in_a_folder_may_be_called_otherwise_than_the_pictures_beside_it():
    pictures = [f"{part}/{id}.png" for part in ("train", "val") for id in ("0001TP_1", "0001TP_12", "Seq_3")]
    masks = {name.replace("/", "_labels/").replace(".png", "_L.png"): name for name in pictures[:2] + pictures[3:]}
    assert masks_among([*pictures, *masks]) == masks
    inside = [f"a/images/img_{number}.jpg" for number in range(3)]
    masks = {f"a/masks/mask_{number}.png": inside[number] for number in (0, 2)}
    assert masks_among([*inside, *masks, "b/labels/mask_0.png", "b/labels/mask_2.png"]) == masks
    assert masks_among([*pictures, "train_labels/0001TP_1_L.png", "train_labels/0002TP_12_L.png"]) == {}


def test_folders_are_known_in_any_letter_case():
    names = ["Images/p.jpg", "MASKS/p.png", "JPEGImages/q.jpg", "SegmentationClass/q.png", "SegmentationObject/q.png"]
    assert masks_among(names) == {
        "MASKS/p.png": "Images/p.jpg",
        "SegmentationClass/q.png": "JPEGImages/q.jpg",
        "SegmentationObject/q.png": None,
    }


def test_drawings_of_masks_are_no_pictures():
    pictures = ["a.jpg", "b.jpg", "c.jpg", "c_2.jpg", "c_color.jpg"]
    masks = {f"{id}_label.png": f"{id}.jpg" for id in "ab"}
    assert masks_among([*pictures, *masks, "a_label_viz.png", "b_label_viz.png"]) == {
        **masks,
        **dict.fromkeys(["a_label_viz.png", "b_label_viz.png"]),
    }
    for end in ("color", "overlay", "Blend"):
        drawn = [f"{id}_{end}.png" for id in "abc"]
        assert masks_among([*pictures, *masks, *drawn]) == {**masks, **dict.fromkeys(drawn)}
    assert masks_among([*pictures, "a_color.png", "d_color.png"]) == {"a_color.png": None}


def test_pictures_called_after_others_are_pictures():
    pictures = [f"{id}.jpg" for id in "abcdef"]
    masks = {f"{id}_mask.png": f"{id}.jpg" for id in "abcdef"}
    others = [f"{id}_{end}" for id in "abcdef" for end in ("right.jpg", "night.png", "flip.jpg", "aug2.png", "2.jpg")]
    others += ["bottle_label_2.jpg", "mustang/1.jpg", "mustang_gt/1.jpg", "face/1.jpg", "face_mask/1.jpg"]
    assert masks_among([*pictures, *masks, *others]) == masks


def test_the_innermost_folder_of_masks_counts():
    names = ["golf_gt/images/b.jpg", "golf_gt/labels/b.png", "label_studio/images/c.jpg", "label_studio/masks/c.png"]
    assert masks_among(names) == {names[1]: names[0], names[3]: names[2]}


def test_folders_called_after_those_of_masks_are_no_pictures():
    names = ["train/images/a.jpg", "train/labels/a.png", "train/labels_colored/a.png", "train/labels_of_cars/x.jpg"]
    assert masks_among(names) == {"train/labels/a.png": "train/images/a.jpg", "train/labels_colored/a.png": None}


def test_a_mask_with_more_behind_its_name_is_one_where_there_is_no_other():
    names = ["a.jpg", "b.jpg", "a_label_ground-truth.png", "b_label_ground-truth.png", "b_label.png"]
    assert masks_among(names) == {
        "a_label_ground-truth.png": "a.jpg",
        "b_label_ground-truth.png": None,
        "b_label.png": "b.jpg",
    }


def test_pictures_may_have_an_ending_as_well():
    names = ["1_sat.jpg", "1_mask.png", "22_sat.jpg", "22_mask.png", "3_sat.jpg"]
    assert masks_among(names) == {"1_mask.png": "1_sat.jpg", "22_mask.png": "22_sat.jpg"}
    assert masks_among(["day_0.jpg", "day_1.jpg", "night_0_mask.png", "night_1_mask.png"]) == {}


def test_masks_called_after_images():
    images = {id: Path(f"{id}.jpg") for id in ("a", "b", "c", "d_mask", "e")}
    masks = ["a_mask", "b.jpg", "c", "c_gt", "d_mask", "e_gt", "e_label", "f_mask", "a_mask_color"]
    assert called_after(masks, images) == {"a": ["a_mask"], "b": ["b.jpg"], "c": ["c_gt"], "e": ["e_gt", "e_label"]}


IDS = ("001", "002", "011", "112")


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        *(("{}_L", "{}"), ("mask_{}", "image_{}"), ("lab_{}", "{}"), ("{}_mask", "{}_sat"), ("{}_seg_mask", "IMG_{}")),
        *(
            ("{}_gtFine_labelTrainIds", "{}_leftImg8bit"),
            ("IMG_{}", "img_{}"),
            ("{}", "train/{}"),
            ("day/{}_L", "day/{}"),
        ),
        *(("2021-04-01_mask_{}", "2021-04-01_img_{}"), ("v2_{}_L", "v2_{}")),
        ("{}_label_ground-truth_semantic_as_drawn_by_someone", "{}"),
    ],
)
@pytest.mark.parametrize("bare", [(), ("003", "212", "01")])
def test_masks_that_differ_from_their_images_by_what_all_share(mask, image, bare):
    pairs = paired([mask.format(id) for id in IDS], [image.format(id) for id in (*IDS, *bare)])
    assert pairs == {image.format(id): mask.format(id) for id in IDS}


@pytest.mark.parametrize(
    ("masks", "images"),
    [
        (["a_L"], ["a", "b"]),
        (["a_L", "b_R"], ["a", "b"]),
        (["a_L", "c_L"], ["a", "b"]),
        (["a_L", "a_R"], ["a", "b"]),
        (["x/a_L", "y/a_L"], ["a", "b"]),
        (["siteB/1", "siteB/2"], ["siteA/1", "siteA/2"]),
        (["b/0", "b/1"], ["a/0", "a/1", "b/x0", "c/x1"]),
        ([f"frame_0{n}00" for n in "1234"], [f"frame_0{n}00" for n in "5678"]),
        (["frame_0100", "frame_0101"], ["frame_0200", "frame_0201"]),
        (["000100", "000101"], ["000200", "000201"]),
        (["2021-03-01", "2021-03-02"], ["2021-04-01", "2021-04-02"]),
        (["0001", "0002"], ["0010", "0020"]),
        (["set1_a", "set1_b"], ["set2_a", "set2_b"]),
        (["a", "A"], ["a_", "A_"]),
        ([], []),
    ],
)
def test_other_masks_are_not_paired(masks, images):
    assert paired(masks, images) == {}


words, inner = st.text("ab_", max_size=4), st.text("ab1_", min_size=1, max_size=4)


@given(
    ids=st.lists(inner, min_size=2, max_size=6, unique=True),
    ends=st.tuples(words, words, words, words),
    bare=st.integers(0, 3),
)
def test_pairs_are_one_to_one_and_those_of_the_names_where_only_they_fit(ids, ends, bare):
    lead, trail, before, behind = ends
    masks = [f"{lead}{id}{trail}" for id in ids[bare:]]
    images = [f"{before}{id}{behind}" for id in ids]
    assume(len(masks) >= 2)
    pairs = paired(masks, images)
    assume(pairs)  # ends beside numbers, and numbers that are all that differs, are not cut
    assert set(pairs.values()) == set(masks)
    assert pairs.keys() <= set(images)
    assert len(pairs) == len(masks)
