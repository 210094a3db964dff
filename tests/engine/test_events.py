from semiseg.engine.events import WARNING, tell


def test_a_warning_begins_so_whatever_it_is_about():
    """By which a listener knows it: what is shown where notes are not."""
    told = []
    tell("data", ["3 masks are in colour", f"{WARNING}2 images are trained on"], told.append)
    assert [(event.kind, event.text) for event in told] == [
        ("note", "data: 3 masks are in colour"),
        ("note", "warning: data: 2 images are trained on"),
    ]
