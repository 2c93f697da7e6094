"""The row of example images from which a visitor chooses one."""

from prisma.view.browser import View
from prisma_app.subject import Picture, Subject


def picker(subject: Subject, chosen: Picture, title: str, *, drawable: bool = False) -> View:
    """The examples of a model, for the viewer `images`.

    Args:
        drawable: whether there is a field to draw in.
    """
    names = [example.caption for example in subject.examples()]
    facts = {"title": title, "names": names, "chosen": chosen.example, "caption": chosen.caption}
    return View({**facts, "drawable": drawable}, {"images": subject.thumbnails()})
