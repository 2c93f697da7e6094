"""What a Hugging Face Space starts: Prisma's app over the models that space.json lists."""

from pathlib import Path

from prisma_app.space import start

if __name__ == "__main__":
    start(Path(__file__).parent)
