"""The row of example images."""

from prisma_app.picker import picker
from prisma_app.session import Session


def test_a_picker_names_every_example_and_the_chosen_one(session: Session) -> None:
    chosen = session.subject.example(2)
    view = picker(session.subject, chosen, "Image", drawable=True)
    assert (view.facts["chosen"], view.facts["caption"], view.facts["drawable"]) == (2, chosen.caption, True)
    assert view.facts["names"] == [example.caption for example in session.subject.examples()]
    assert view.arrays["images"].shape[0] == len(view.facts["names"])
