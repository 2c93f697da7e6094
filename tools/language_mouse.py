"""Train the mouse that speaks again, and write it into the package: python tools/language_mouse.py"""

from prisma.language.mouse import FOLDER, train_mouse


def main() -> None:
    model, tokenizer = train_mouse()
    model.save_pretrained(FOLDER)
    tokenizer.save_pretrained(FOLDER)


if __name__ == "__main__":
    main()
