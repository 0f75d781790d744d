"""Messages for people: one line each."""


def one_line(message: object, at_most: int = 600) -> str:
    """A message on one line of printable characters; of an error without one, the name of its type.

    Args:
        message: An error or a text, perhaps of another library or of a file that means harm.
        at_most: Number of characters.
    """
    text = " ".join(str(message).split()).rstrip(".") or type(message).__name__
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= at_most else text[: at_most - 3] + "..."
