"""What a scrubber may answer instead of a picture."""

from __future__ import annotations

from typing import Final

DETAILS: Final = frozenset(
    {
        "not_an_image",
        "unsupported_format",
        "too_large",
        "too_many_pixels",
        "truncated",
        "polyglot",
        "multi_frame",
        "too_many_scans",
        "chunk_too_large",
        "decode_timeout",
        "residue_found",
        "no_face",
        "too_many_faces",
        "verifier_linked",
    }
)
"""Every `detail` of a refusal, as the contract names them."""


class Rejected(Exception):
    """The bytes are not a picture that may be processed; `detail` says why.

    - `not_an_image`: no known magic, or the file breaks the grammar of its own format.
    - `unsupported_format`: a picture, but of a kind that is not taken (BMP, JPEG XL, arithmetic JPEG).
    - `too_large`: more bytes than the cap.
    - `too_many_pixels`: area, side or memory beyond the cap.
    - `truncated`: the file ends before the picture does.
    - `polyglot`: the file is also a document, an archive or a program.
    - `multi_frame`: an animation, or a document of several pages.
    - `too_many_scans`: a progressive JPEG built to burn time.
    - `chunk_too_large`: a chunk beyond the cap, or more chunks than the cap.
    - `decode_timeout`: decoding took longer than allowed.
    - `residue_found`: bytes that belong to no pixel could not be removed, so nothing is handed out.
    - `no_face`: no face is found.
    - `too_many_faces`: more faces are found than are allowed.
    - `verifier_linked`: a face of the input is still found in what was made of it, or the recogniser
      links the two.
    """

    def __init__(self, detail: str) -> None:
        """Keep the code; anything but a code of `DETAILS` is a programming error."""
        if detail not in DETAILS:
            raise ValueError("unknown detail of a refusal")
        super().__init__(detail)
        self.detail = detail


class ScrubberUnavailable(Exception):
    """The worker process cannot be started, died twice on one picture, or was closed."""
