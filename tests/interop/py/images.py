"""Edits a picture with OpenAI's own client; it runs where that is installed, without Lethe.

URL KEY MODEL PICTURE PROMPT    the result goes to stdout
"""

import base64
import sys
from pathlib import Path

from openai import OpenAI

url, key, model, picture, prompt = sys.argv[1:]
with OpenAI(base_url=url, api_key=key, max_retries=0) as client:
    assert model in [one.id for one in client.models.list()]
    with Path(picture).open("rb") as file:
        answer = client.images.edit(model=model, image=file, prompt=prompt, n=1)
sys.stdout.buffer.write(base64.b64decode(answer.data[0].b64_json))
