"""A library that phones: c2pa at its default, which fetches the manifest of a picture from elsewhere."""

from __future__ import annotations

import io
import sys

import c2pa
from PIL import Image

from tests.c2pa import OFFLINE

XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="https://manifests.lethe.test/a.c2pa"/>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""

if __name__ == "__main__":
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG", xmp=XMP)
    context = c2pa.Context.from_dict(OFFLINE) if "offline" in sys.argv else c2pa.Context()
    try:
        c2pa.Reader("image/jpeg", io.BytesIO(picture.getvalue()), context=context)
    except c2pa.C2paError as error:
        print(type(error).__name__)
