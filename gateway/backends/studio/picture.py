"""One portrait becomes a studio headshot: find the face, crop, cut out, correct, set before a backdrop.

Nothing is invented: every pixel of the person comes from the photo.  The same
bytes and style give the same result.  A face is only located (a box and its
score); no template that tells one person from another is computed.

Arrays are OpenCV's: height, width, channels BGR.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps, UnidentifiedImageError

from gateway.deidentify.faces.names import DETECTOR

Bytes8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Report = Callable[[int, str], None]

VERSION = "1"
WIDTH, HEIGHT = 1024, 1280
MAX_PIXELS = 50_000_000
FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}

SEGMENTER = "selfie_segmentation.tflite"
MODELS = (DETECTOR, SEGMENTER)

FACE_SHARE = 0.36
"""Height of the face in the headshot, as a share of the headshot's."""
FACE_LINE = 0.42
"""Where the middle of the face lies, from the top."""
MAX_ENLARGEMENT = 4.0
"""A small photo is cropped wider rather than blown up beyond this."""


class PictureRejected(Exception):
    """The picture cannot be used; `detail` is the code that says why."""

    def __init__(self, detail: str) -> None:
        """Keep the code, for example "no_face"."""
        super().__init__(detail)
        self.detail = detail


class NoFace(PictureRejected):
    """No face is found in the picture."""

    def __init__(self) -> None:
        """Carry the code of the contract."""
        super().__init__("no_face")


class Stopped(Exception):
    """The job was told to stop."""


class Box(NamedTuple):
    """A rectangle in pixels: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float


class Face(NamedTuple):
    """Where a face is, and how sure the detector is (0 to 1)."""

    box: Box
    score: float


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A radial studio backdrop: its colour behind the head and at the far corners, RGB."""

    light: tuple[int, int, int]
    dark: tuple[int, int, int]


STYLES: Mapping[str, Backdrop] = {
    "studio_grey": Backdrop(light=(203, 205, 208), dark=(92, 96, 102)),
    "studio_blue": Backdrop(light=(158, 184, 208), dark=(38, 58, 88)),
    "studio_warm": Backdrop(light=(224, 208, 188), dark=(118, 94, 72)),
}


_WISHES: Mapping[str, frozenset[str]] = {
    "studio_grey": frozenset({"grey", "gray", "grau", "grauer", "gris"}),
    "studio_blue": frozenset({"blue", "blau", "blauer", "bleu", "azul"}),
    "studio_warm": frozenset({"warm", "warmer", "beige", "chaud", "chaude", "calido", "c\u00e1lido"}),
}


def wished(style: str, prompt: str) -> str:
    """Return the style whose backdrop the prompt names first, or `style`; no other word counts."""
    for word in re.findall(r"\w+", prompt.lower()):
        for name, words in _WISHES.items():
            if word in words:
                return name
    return style


@dataclass(frozen=True, slots=True)
class Headshot:
    """A finished headshot: JPEG bytes without metadata, and its size in pixels."""

    image: bytes
    width: int
    height: int


class Steps:
    """Reports each stage, and stops the work between two of them."""

    def __init__(self, report: Report, is_stopped: Callable[[], bool]) -> None:
        """Take the listener and the question whether to stop."""
        self._report = report
        self._is_stopped = is_stopped

    def begin(self, percent: int, stage: str) -> None:
        """Report a stage as begun.

        Raises:
            Stopped: The job was told to stop.
        """
        if self._is_stopped():
            raise Stopped
        self._report(percent, stage)


class Studio:
    """The pipeline with its models loaded.  One thread at a time may use an instance."""

    def __init__(self, weights: Mapping[str, bytes]) -> None:
        """Build the models from their files' bytes, which were checked (`weights.read`)."""
        model = np.frombuffer(weights[DETECTOR], np.uint8)
        none = np.empty(0, np.uint8)
        self._detector = cv2.FaceDetectorYN.create("onnx", model, none, (320, 320), 0.6, 0.3, 500)
        self._segmenter = Interpreter(model_content=weights[SEGMENTER], num_threads=1)
        self._segmenter.allocate_tensors()
        self._input = self._segmenter.get_input_details()[0]["index"]
        self._output = self._segmenter.get_output_details()[0]["index"]

    def headshot(
        self,
        image: bytes,
        image_type: str,
        style: str,
        *,
        report: Report = lambda _percent, _stage: None,
        is_stopped: Callable[[], bool] = lambda: False,
        max_pixels: int = MAX_PIXELS,
    ) -> Headshot:
        """Return the headshot of the largest face in `image`, a file of `image_type` (a key of `FORMATS`).

        `report` hears (percent, stage) as stages begin; `is_stopped` is asked
        between them, so a stop takes at most one stage.

        Raises:
            PictureRejected: The picture cannot be used; `NoFace` if it shows no face.
            Stopped: `is_stopped` said so.
        """
        steps = Steps(report, is_stopped)
        steps.begin(5, "decode")
        photo = decode(image, image_type, max_pixels)
        steps.begin(20, "find_face")
        face = self.subject(photo)
        steps.begin(35, "crop")
        shot, place = crop(photo, face)
        del photo
        steps.begin(45, "segment")
        alpha = self.cut_out(shot, place)
        steps.begin(65, "tone")
        shot = tone(shot, alpha)
        steps.begin(80, "backdrop")
        shot = compose(shot, alpha, backdrop(STYLES[style], place))
        steps.begin(92, "encode")
        return Headshot(encode(shot), WIDTH, HEIGHT)

    def faces(self, photo: Bytes8) -> list[Face]:
        """Return the faces of `photo`, largest first.

        The detector misses faces that are very large or very small in its
        input, so it looks at three scales.
        """
        found: list[Face] = []
        longest = max(photo.shape[:2])
        for side in (320, 640, 1600):
            scale = min(1.0, side / longest)
            found += self._faces_at(photo, scale)
            if scale == 1.0:
                break
        kept = cv2.dnn.NMSBoxes([face.box for face in found], [face.score for face in found], 0.0, 0.4)
        best = [found[index] for index in np.asarray(kept, dtype=int).reshape(-1)]
        return sorted(best, key=lambda face: (-face.box.w * face.box.h, face.box))

    def _faces_at(self, photo: Bytes8, scale: float) -> list[Face]:
        height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
        small = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        self._detector.setInputSize((width, height))
        _, rows = self._detector.detect(small)
        if rows is None:
            return []
        return [Face(Box(*(float(v) / scale for v in row[:4])), float(row[14])) for row in rows]

    def subject(self, photo: Bytes8) -> Face:
        """Return the face the headshot is of: the largest.

        Raises:
            NoFace: There is none.
        """
        faces = self.faces(photo)
        if not faces:
            raise NoFace
        return faces[0]

    def cut_out(self, shot: Bytes8, face: Box) -> Floats:
        """Return how much of each pixel is the person: float32, shape of the shot, 0 to 1."""
        alpha = refine(shot, self._person(shot))
        return one_person(alpha, face)

    def _person(self, shot: Bytes8) -> Floats:
        """Return the segmenter's answer, 256 x 256, the mean of the shot and its mirror image.

        The model is not quite symmetric; the mean is, and its edges are calmer.
        """
        rgb = cv2.cvtColor(cv2.resize(shot, (256, 256), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        tensor = rgb.astype(np.float32) / np.float32(255)
        straight = self._segment(tensor)
        mirrored = self._segment(np.ascontiguousarray(tensor[:, ::-1]))[:, ::-1]
        return (straight + mirrored) / np.float32(2)

    def _segment(self, tensor: Floats) -> Floats:
        self._segmenter.set_tensor(self._input, tensor[None])
        self._segmenter.invoke()
        answer: Floats = self._segmenter.get_tensor(self._output)[0, :, :, 0]
        return answer


def decode(image: bytes, image_type: str, max_pixels: int = MAX_PIXELS) -> Bytes8:
    """Return the picture upright, as its EXIF orientation says, and without transparency.

    The size is read from the header and judged before a pixel is decoded.  Only
    the decoder of the declared type is tried.

    Raises:
        PictureRejected: It is no picture we take, is too large, or is broken.
    """
    try:
        with Image.open(io.BytesIO(image), formats=(FORMATS[image_type],)) as file:
            _judge_header(file, max_pixels)
            file.load()
            upright = ImageOps.exif_transpose(file)
    except PictureRejected:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureRejected("too_many_pixels") from error
    except UnidentifiedImageError as error:
        raise PictureRejected("not_an_image") from error
    except Exception as error:
        # Broken files make the decoders raise whatever they stumble over.
        raise PictureRejected("truncated") from error
    return _bgr(upright)


def _judge_header(file: Image.Image, max_pixels: int) -> None:
    if file.width * file.height > max_pixels:
        raise PictureRejected("too_many_pixels")
    if getattr(file, "n_frames", 1) > 1:
        raise PictureRejected("multi_frame")


def _bgr(picture: Image.Image) -> Bytes8:
    if picture.has_transparency_data:
        ground = Image.new("RGBA", picture.size, (128, 128, 128, 255))
        ground.alpha_composite(picture.convert("RGBA"))
        picture = ground
    return _bytes8(cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2BGR))


def frame(photo_width: int, photo_height: int, face: Box) -> Box:
    """Return the part of the photo that becomes the headshot: 4:5, inside the photo, around the face."""
    wanted = max(face.h / FACE_SHARE, HEIGHT / MAX_ENLARGEMENT)
    height = min(wanted, photo_height, photo_width * HEIGHT / WIDTH)
    width = height * WIDTH / HEIGHT
    left = face.x + face.w / 2 - width / 2
    top = face.y + face.h / 2 - height * FACE_LINE
    return Box(
        min(max(left, 0.0), photo_width - width), min(max(top, 0.0), photo_height - height), width, height
    )


def crop(photo: Bytes8, face: Face) -> tuple[Bytes8, Box]:
    """Return the crop at the headshot's size, and where its face is."""
    part = frame(photo.shape[1], photo.shape[0], face.box)
    scale = HEIGHT / part.h
    if scale < 1:
        # Averaging first keeps fine hair from aliasing.
        photo = _bytes8(cv2.GaussianBlur(photo, (0, 0), 0.4 / scale))
    matrix = np.array([[scale, 0, -part.x * scale], [0, scale, -part.y * scale]], np.float64)
    shot = cv2.warpAffine(
        photo, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    box = face.box
    placed = Box((box.x - part.x) * scale, (box.y - part.y) * scale, box.w * scale, box.h * scale)
    return _bytes8(shot), placed


def refine(shot: Bytes8, person: Floats) -> Floats:
    """Return the coarse mask drawn along the edges of the shot (guided filter, He et al. 2010).

    The filter's coefficients are computed at half size and applied at full
    size: the same edges at a quarter of the cost (He & Sun 2015).
    """
    half = (WIDTH // 2, HEIGHT // 2)
    guide = cv2.cvtColor(shot, cv2.COLOR_BGR2GRAY).astype(np.float32) / np.float32(255)
    small = _floats(cv2.resize(guide, half, interpolation=cv2.INTER_AREA))
    mask = _floats(cv2.resize(person, half, interpolation=cv2.INTER_CUBIC))
    slope, offset = _guided(small, mask, radius=9, softness=1e-3)
    size = (WIDTH, HEIGHT)
    drawn = cv2.resize(slope, size) * guide + cv2.resize(offset, size)
    # What is nearly background becomes background: no haze around the hair.
    return _smoothstep(_floats(drawn), 0.45, 0.85)


def _guided(guide: Floats, mask: Floats, radius: int, softness: float) -> tuple[Floats, Floats]:
    def mean(values: npt.NDArray[Any]) -> Floats:
        return _floats(cv2.boxFilter(values, cv2.CV_32F, (2 * radius + 1, 2 * radius + 1)))

    mean_guide, mean_mask = mean(guide), mean(mask)
    covariance = mean(guide * mask) - mean_guide * mean_mask
    variance = mean(guide * guide) - mean_guide * mean_guide
    slope = covariance / (variance + np.float32(softness))
    return mean(slope), mean(mean_mask - slope * mean_guide)


def _smoothstep(values: Floats, low: float, high: float) -> Floats:
    share = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return _floats(share * share * (3 - 2 * share))


def one_person(alpha: Floats, face: Box) -> Floats:
    """Return `alpha` with nothing but the connected part that holds the face.

    Raises:
        NoFace: The face is in no such part: what was found is no person.
    """
    solid = (alpha > 0.5).astype(np.uint8)
    _, labels = cv2.connectedComponents(solid, connectivity=4)
    inside = labels[_rows_and_columns(face)]
    counts = np.bincount(inside[inside > 0])
    if not counts.size:
        raise NoFace
    person = (labels == int(counts.argmax())).astype(np.uint8)
    reach = cv2.dilate(person, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (31, 31)))
    reach = cv2.GaussianBlur(reach.astype(np.float32), (0, 0), 4)
    return alpha * reach


def _rows_and_columns(box: Box) -> tuple[slice, slice]:
    left, top = max(0, int(box.x)), max(0, int(box.y))
    return slice(top, max(top + 1, int(box.y + box.h))), slice(left, max(left + 1, int(box.x + box.w)))


def tone(shot: Bytes8, alpha: Floats) -> Bytes8:
    """Return the shot with a calmer colour cast, a fuller range, and crisper detail."""
    lab = _floats(cv2.cvtColor(shot.astype(np.float32) / np.float32(255), cv2.COLOR_BGR2LAB))
    lightness, *colour = cv2.split(lab)
    colour = [plane - np.float32(shift) for plane, shift in zip(colour, _cast(lab), strict=True)]
    lightness = _crisper(_local_contrast(_range(_floats(lightness), alpha)))
    merged = cv2.merge([np.clip(lightness, 0, 100), *colour])
    return _to_bytes(cv2.cvtColor(merged, cv2.COLOR_LAB2BGR) * 255)


def _cast(lab: Floats) -> tuple[float, float]:
    """Return a third of the colour (a, b) that the photo's near-greys share, at most 4 each.

    Only near-greys count: a red jacket is not a cast, and neither is skin.
    """
    small = cv2.resize(lab, (128, 160), interpolation=cv2.INTER_AREA)
    grey = small[np.hypot(small[..., 1], small[..., 2]) < 12]
    if len(grey) < 500:
        return 0.0, 0.0
    means = np.clip(grey[:, 1:].mean(axis=0) * 0.35, -4, 4)
    return float(means[0]), float(means[1])


def _range(lightness: Floats, alpha: Floats) -> Floats:
    """Return the lightness with the person's darkest and lightest parts brought half-way to the ends.

    The scale is set by hair, cloth and highlights together.  There is no target
    for skin: one would make dark faces lighter and pale ones darker.
    """
    person = lightness[::4, ::4][alpha[::4, ::4] > 0.8]
    if person.size < 500:
        return lightness
    dark, bright = (float(value) for value in np.percentile(person, (1, 99)))
    low = dark + 0.5 * (min(dark, 6.0) - dark)
    high = bright + 0.5 * (max(bright, 95.0) - bright)
    gain = min(1.35, (high - low) / max(20.0, bright - dark))
    return (lightness - np.float32(dark)) * np.float32(gain) + np.float32(low)


def _local_contrast(lightness: Floats) -> Floats:
    plain = _to_bytes(lightness * 2.55)
    equalised = cv2.createCLAHE(clipLimit=1.5, tileGridSize=(4, 5)).apply(plain)
    change = cv2.subtract(equalised.astype(np.float32), plain.astype(np.float32))
    return lightness + change * np.float32(0.2 / 2.55)


def _crisper(lightness: Floats) -> Floats:
    fine = lightness - cv2.GaussianBlur(lightness, (0, 0), 2.0)
    return lightness + np.float32(0.4) * fine


def backdrop(style: Backdrop, face: Box) -> Floats:
    """Return the backdrop, lit behind the head; float32, 0 to 255.

    A little fixed noise keeps its gradient from showing bands.
    """
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    middle_x, middle_y = face.x + face.w / 2, face.y + face.h * 0.6
    distance = np.hypot((columns - np.float32(middle_x)) / WIDTH, (rows - np.float32(middle_y)) / HEIGHT)
    share = _smoothstep(distance, 0.05, 0.95)[..., None]
    light, dark = (np.array(colour[::-1], np.float32) for colour in (style.light, style.dark))
    noise = np.random.default_rng(0).random((HEIGHT, WIDTH, 1), np.float32) - np.float32(0.5)
    return _floats(light * (1 - share) + dark * share + noise * 3)


def compose(shot: Bytes8, alpha: Floats, ground: Floats) -> Bytes8:
    """Return the person before the backdrop, with a faint vignette over both."""
    weight = alpha[..., None]
    picture = _own_colour(shot, alpha) * weight + ground * (1 - weight)
    rows, columns = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j].astype(np.float32)
    vignette = 1 - np.float32(0.14) * _smoothstep(np.hypot(rows, columns), 0.7, 1.5)
    return _to_bytes(picture * vignette[..., None])


def _own_colour(shot: Bytes8, alpha: Floats) -> Floats:
    """Return the shot with the person's own colour carried out to half-covered pixels.

    There the photo's old background still shows through and would leave a rim.
    """
    pixels = shot.astype(np.float32)
    core = np.where(alpha > 0.95, alpha, 0).astype(np.float32)
    weight = cv2.GaussianBlur(core, (0, 0), 7)
    near = cv2.GaussianBlur(pixels * core[..., None], (0, 0), 7) / np.maximum(weight, 1e-3)[..., None]
    trust = np.clip(alpha + (1 - np.clip(weight * 8, 0, 1)), 0, 1)[..., None]
    return _floats(pixels * trust + near * (1 - trust))


def encode(shot: Bytes8) -> bytes:
    """Return the picture as a JPEG file that holds pixels and no metadata."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 92]
    _, data = cv2.imencode(".jpg", shot, options)
    return data.tobytes()


def _to_bytes(values: npt.NDArray[Any]) -> Bytes8:
    return _bytes8(np.clip(np.rint(values), 0, 255))


def _bytes8(values: npt.NDArray[Any]) -> Bytes8:
    return values.astype(np.uint8, copy=False)


def _floats(values: npt.NDArray[Any]) -> Floats:
    return values.astype(np.float32, copy=False)
