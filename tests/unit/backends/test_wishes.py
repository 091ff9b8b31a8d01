"""What the studio reads from a prompt: the colour of its backdrop, and nothing else."""

import pytest

from gateway.backends.studio.picture import STYLES, wished


@pytest.mark.parametrize(
    ("prompt", "style"),
    [
        ("", "studio_grey"),
        ("[person] in a hat", "studio_grey"),
        ("Corporate portrait, blue backdrop", "studio_blue"),
        ("Porträt, Hintergrund: Blau", "studio_blue"),
        ("fond bleu, lumière douce", "studio_blue"),
        ("luz cálida, fondo beige", "studio_warm"),
        ("warm light, then blue", "studio_warm"),
    ],
)
def test_the_first_colour_it_knows_counts(prompt: str, style: str) -> None:
    assert wished("studio_grey", prompt) == style
    assert style in STYLES
