"""Sees to the faces in a picture as its purpose says, and to nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from gateway import deidentify
from gateway.deidentify.deidentified import Deidentified, Deidentifier, Profile
from gateway.errors import DeidentificationRequired, ImageRejected, ScrubberUnavailable
from policy.faces import pair
from policy.terms import Purpose


@dataclass(frozen=True, slots=True)
class Faces:
    """The one way for a flow to a picture whose faces were seen to.

    A picture that shows more than `max_faces` faces is refused, whatever it is for.
    """

    deidentifier: Deidentifier
    max_faces: int

    @staticmethod
    def profile(purpose: Purpose, wished: str = "") -> Profile:
        """Return what is to be done about faces, `wished` if the purpose allows it.

        Raises:
            DeidentificationRequired: It does not; the detail is the reason of `policy.faces`.
        """
        chosen = pair(purpose, wished)
        if not chosen.profile:
            raise DeidentificationRequired(detail=chosen.reason, deciding_pack="house")
        return cast("Profile", chosen.profile)

    async def see_to(self, image: bytes | bytearray, purpose: Purpose, wished: str = "") -> Deidentified:
        """Return the picture as `purpose` wants it; what cannot be made so is not handed out.

        Raises:
            DeidentificationRequired: What is wished is not for this purpose.
            ImageRejected: No face, too many, a face that stays linked, or no picture at all.
            ScrubberUnavailable: Nobody can look at it now.
        """
        profile = self.profile(purpose, wished)
        try:
            return await self.deidentifier.deidentify(image, profile, max_faces=self.max_faces)
        except deidentify.Rejected as rejected:
            raise ImageRejected(detail=rejected.detail) from rejected
        except deidentify.ScrubberUnavailable as error:
            raise ScrubberUnavailable from error
