"""What has a form: addresses of every kind, and numbers, with their check digits where they have any."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Final

import phonenumbers
from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.it import codicefiscale
from stdnum.us import ssn

Find = Callable[[str], Iterator[tuple[int, int]]]

PHONE_REGIONS: Final = ("US", "GB", "DE", "FR", "ES")
"""Whose national forms are known; with a leading + every country's are."""

_TLD: Final = (
    r"(?:com|org|net|edu|gov|info|biz|io|co|me|app|dev|tv|xyz|site|online|shop|studio|photo|photos|"
    r"photography|gallery|email|eu|de|at|ch|fr|be|es|"
    r"mx|ar|cl|it|pt|br|nl|uk|ie|us|ca|au|nz|in|jp|cn|pl|se|no|dk|fi|cz|test|example|invalid|local)"
)
_AT: Final = r"(?:@|%40|&#64;|\s?[\[({<]\s?(?:at|@|arroba|arobase)\s?[\])}>]\s?)"
_DOT: Final = r"(?:\.|\s?[\[({<]\s?(?:dot|punkt|point|punto|\.)\s?[\])}>]\s?)"
_SPOKEN: Final = (
    r"(?<![\w.])[\w.+-]{1,64} (?:at|arroba|arobase|klammeraffe) (?:[\w-]{1,63} (?:dot|"
    rf"punkt|point|punto) ){{1,3}}{_TLD}\b"
)
_LABEL: Final = r"(?:\s*(?:no|nr|num(?:ber|ero|mer)?|n\.?[o°]|n)(?!\w)\.?)?\s*(?:is|ist|est|es|[:=#])?\s*#?"

_DAY: Final = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH: Final = (
    r"(?:jan(?:uary|uar|vier)?|ene(?:ro)?|feb(?:ruary|ruar|rero)?|fev(?:rier)?|mar(?:ch|s|zo)?|marz|maerz|"
    r"apr(?:il)?|avr(?:il)?|abr(?:il)?|may|mai|mayo|"
    r"june?|juni|juin|junio|july?|juli|juillet|julio|aug(?:ust)?|aout|ago(?:sto)?|sept?(?:ember|embre|"
    r"iembre)?|oct(?:ober|obre|ubre)?|okt(?:ober)?|"
    r"nov(?:ember|embre|iembre)?|dec(?:ember|embre)?|dez(?:ember)?|dic(?:iembre)?)\.?"
)
_DATE: Final = (
    rf"(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|{_DAY}[-/.]\s?\d{{1,2}}[-/.]\s?\d{{2,4}}|"
    rf"{_DAY}(?:st|nd|rd|th|\.|er)?\s(?:of\s|de\s)?{_MONTH},?(?:\s(?:de\s|del\s)?\d{{2,4}})?|"
    rf"{_MONTH}\s{_DAY}(?:st|nd|rd|th)?,?\s\d{{2,4}})"
)
_CAP: Final = r"[A-Z][\w'-]{0,30}\.?"
_TOWN: Final = rf"(?:,?\s(?:[A-Z]{{1,2}}-)?\d{{4,5}}\s{_CAP}(?:[ -]{_CAP}){{0,2}})?"


def _pattern(pattern: str, *, is_exact: bool = False) -> Find:
    """Return what finds `pattern`: its group `x` where it has one, else all of it."""
    compiled = re.compile(pattern, 0 if is_exact else re.IGNORECASE)
    group: str | int = "x" if "x" in compiled.groupindex else 0

    def find(text: str) -> Iterator[tuple[int, int]]:
        return (match.span(group) for match in compiled.finditer(text))

    return find


def _checked(pattern: str, *checks: Callable[[str], bool]) -> Find:
    """Return what finds `pattern` where one of the checks confirms it."""
    compiled = re.compile(pattern, re.IGNORECASE)

    def find(text: str) -> Iterator[tuple[int, int]]:
        for match in compiled.finditer(text):
            plain = re.sub(r"[\s./-]", "", match.group())
            if any(check(plain) for check in checks):
                yield match.span()

    return find


def _is_card(digits: str) -> bool:
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn.is_valid(digits)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _ip(text: str) -> Iterator[tuple[int, int]]:
    for match in re.finditer(
        r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)|(?<![\w:])[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:.]*",
        text,
        re.IGNORECASE,
    ):
        if _is_ip(match.group().rstrip(".")) and len(match.group()) > 3:
            yield match.start(), match.start() + len(match.group().rstrip("."))


def _iban(text: str) -> Iterator[tuple[int, int]]:
    # What follows may look like one more group: the longest that checks is taken.
    for match in re.finditer(r"(?<!\w)[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}", text, re.IGNORECASE):
        for end in range(match.end(), match.start() + 14, -1):
            if iban.is_valid(re.sub(r"[ -]", "", text[match.start() : end])):
                yield match.start(), end
                break


def _phone(text: str) -> Iterator[tuple[int, int]]:
    """Find numbers that some country's plan knows; the library looks at what may be one, not at all of it."""
    for near in _DIGITS.finditer(text):
        if _NO_NUMBER.search(text[: near.start()]):
            continue
        for region in PHONE_REGIONS:
            for match in phonenumbers.PhoneNumberMatcher(near.group(), region):
                start, end = near.start() + match.start, near.start() + match.end
                if sum(char.isdigit() for char in match.raw_string) >= 9 and not _is_measure(text, end):
                    yield start, end


_DIGITS: Final = re.compile(r"[+(]{0,2}\d(?:[\s().\-/]{0,3}\d){7,30}")
_NO_NUMBER: Final = re.compile(r"(?:seed|sref|noise|hash)\s{0,2}[:=]?\s{0,2}\Z", re.IGNORECASE)


def _is_measure(text: str, end: int) -> bool:
    return re.match(r"\s?(?:mm|px|k\b|fps|dpi|iso|mp\b)", text[end:], re.IGNORECASE) is not None


_CALL: Final = (
    r"(?<!\w)(?:call(?: me)?(?: (?:at|on))?|phone|tel|telephone|mobile|cell|text me(?: at| on)?|whats ?app|"
    r"telefon(?:nummer)?|tel\.?|handy(?:nummer)?|"
    r"mobil|anrufen|ruf(?:nummer)?|telefono|movil|llama(?:me)?(?: al)?|portable|appel(?:le|"
    r"ez)?(?:-moi)?(?: au)?|numero|number|signal|fax)"
)

FINDERS: Final[tuple[tuple[str, Find], ...]] = (
    ("payment_card", _checked(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d])", _is_card)),
    ("iban", _iban),
    (
        "national_id",
        _checked(
            r"(?<![\d.])\d{3}[- ]\d{2}[- ]\d{4}(?![\d])",
            ssn.is_valid,
            lambda digits: digits[:3] not in {"000", "666"},
        ),
    ),
    (
        "national_id",
        _pattern(
            r"(?<!\w)(?:ssn|social security|sozialversicherung\w*)(?: number)?"
            rf"{_LABEL}\s*(?P<x>[\d -]{{8,14}}\d)"
        ),
    ),
    (
        "national_id",
        _pattern(
            r"(?<!\w)(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
            r" ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)"
        ),
    ),
    ("national_id", _checked(r"(?<![\w.])\d{2}[ ]?\d{3}[ ]?\d{3}[ ]?\d{3}(?![\d])", idnr.is_valid)),
    (
        "national_id",
        _checked(
            r"(?<!\d)[1-478][ .]?\d{2}[ .]?\d{2}[ .]?(?:\d{2}|2[AB])[ .]?\d{3}[ .]?\d{3}[ .-]?\d{2}(?!\d)",
            nir.is_valid,
        ),
    ),
    (
        "national_id",
        _pattern(r"(?<!\d)[12] \d{2} (?:0[1-9]|1[0-2]) (?:\d{2}|2[AB]) \d{3} \d{3}(?: \d{2})?(?!\d)"),
    ),
    ("national_id", _checked(r"(?<!\w)(?:\d{8}|\d{2}\.\d{3}\.\d{3})[ -]?[A-Z](?!\w)", dni.is_valid)),
    ("national_id", _checked(r"(?<!\w)[XYZ][ -]?\d{7}[ -]?[A-Z](?!\w)", nie.is_valid)),
    ("national_id", _checked(r"(?<!\d)\d{3}\.?\d{3}\.?\d{3}-?\d{2}(?!\d)", cpf.is_valid)),
    ("national_id", _checked(r"(?<![\d.])\d{3}[ -]\d{3}[ -]\d{3}(?![\d])", sin.is_valid)),
    ("national_id", _checked(r"(?<![\d.])\d{3}[ -]\d{3}[ -]\d{4}(?![\d])", nhs.is_valid)),
    (
        "national_id",
        _checked(r"(?<!\w)[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z](?!\w)", codicefiscale.is_valid),
    ),
    ("email", _pattern(rf"(?<![\w.+-])[\w.+'-]{{1,64}}{_AT}(?:[\w-]{{1,63}}{_DOT}){{1,4}}[a-z]{{2,24}}\b")),
    ("email", _pattern(_SPOKEN)),
    ("url", _pattern(r"(?<!\w)(?:https?|ftp|s3|ipfs|hxxps?)://[^\s<>\"']{2,}|(?<![\w.])www\.[^\s<>\"']{3,}")),
    (
        "url",
        _pattern(
            rf"(?<![\w@.-])(?:[a-z0-9-]{{1,63}}\.){{1,4}}{_TLD}(?::\d{{2,5}})?(?:/[^\s<>\"',]*)?(?![\w.]*\w)(?<![.])"
        ),
    ),
    ("ip_address", _ip),
    ("mac_address", _pattern(r"(?<![\w:-])(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}(?![\w:-])")),
    (
        "file_name",
        _pattern(
            r"(?<![\w/\\])(?:[a-z]:\\|~?/)?(?:[\w.-]{1,64}[/\\]){0,8}[\w.()-]{1,80}"
            r"\.(?:jpe?g|png|webp|gif|tiff?|heic|avif|bmp|dng|cr[23]|nef|arw|psd|pdf|docx?|xlsx?|csv|txt|"
            r"mp4|mov|zip)\b"
        ),
    ),
    (
        "date_of_birth",
        _pattern(
            rf"(?<!\w)(?:born(?: on)?|birth ?(?:day|date)?|date of birth|d\.?o\.?b\.?|geboren(?: am)?|"
            rf"geb\.?|geburts(?:tag|datum)|nee?(?:\(e\))?s? le|"
            rf"date de naissance|anniversaire|nacid[oa](?: el)?|nacio el|naci el|fecha de nacimiento|"
            rf"cumpleanos)"
            rf"\s*(?:is|ist|est|es|am|le|el|on|in|the|[:=,])*\s*(?P<x>{_DATE})"
        ),
    ),
    ("phone", _phone),
    ("phone", _pattern(rf"{_CALL}{_LABEL}\s*:?\s*(?P<x>[+(]?\d(?:[\s().\-/]{{0,2}}\d){{6,14}})(?!\s?mm)")),
    (
        "document_number",
        _pattern(
            r"(?<!\w)(?:passport|reisepass(?:nummer)?|passeport|pasaporte|driv(?:er'?s?|ing) licen[cs]e|"
            r"fuhrerschein(?:nummer)?|permis de conduire|"
            r"carn?et de conducir|personalausweis(?:nummer)?|ausweis(?:nummer)?|carte d'identite|"
            r"(?:employee|staff|customer|patient|student|member|badge|user|"
            r"account|order|case|insurance|tax) ?(?:id|number|no)|(?:kunden|personal|mitarbeiter|patienten|"
            r"mitglieds|versicherten|steuer|konto|matrikel)-?(?:nummer|nr|id)|"
            r"numero (?:de )?(?:client|patient|dossier|securite sociale|cliente|paciente|empleado|"
            r"expediente|socio)|steuer-?id|tax id|id|nif|cpf|"
            r"licen[cs]e plate|number plate|kennzeichen|plaque|matricula|vin)"
            rf"{_LABEL}\s*(?P<x>(?=[\w-]*\d)(?:[A-Z]{{1,3}}[- ]){{0,2}}"
            r"[A-Z0-9][\w./-]{3,24}(?:[ -]\d{2,6}){0,4})"
        ),
    ),
    (
        "document_number",
        _pattern(
            r"(?<!\w)(?:licen[cs]e plate|number plate|kennzeichen|nummernschild|plaque|matricula)"
            r"\W{1,3}(?P<x>[A-Z]{1,3}[- ]?[A-Z]{1,3}[- ]?\d{1,4}[A-Z]?)(?!\w)"
        ),
    ),
    (
        "coordinates",
        _pattern(r"(?<![\w.])-?\d{1,2}\.\d{3,}°?\s?[NS]?[,;\s]\s?-?\d{1,3}\.\d{3,}°?\s?[EWO]?(?![\w.])"),
    ),
    (
        "coordinates",
        _pattern(
            r"(?<!\w)\d{1,3}°\s?\d{1,2}['′]\s?(?:\d{1,2}(?:\.\d+)?[\"″]|"
            r"\d{1,2}(?:\.\d+)?'')?\s?[NSEWO](?:[,\s]+\d{1,3}°\s?\d{1,2}['′]\s?(?:\d{1,2}(?:\.\d+)?[\"″]|"
            r"\d{1,2}(?:\.\d+)?'')?\s?[NSEWO])?"
        ),
    ),
    (
        "address",
        _pattern(
            rf"(?<![\w.])\d{{1,5}}[A-Za-z]?,?\s(?:[NSEW]\.?\s)?(?:(?:{_CAP}|\d{{1,3}}(?:st|nd|rd|"
            rf"th))\s){{1,4}}(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|"
            r"Boulevard|Blvd|Court|Ct|Place|Pl|Way|Square|Sq|Terrace|Close|Crescent|Gardens|Grove|Hill|"
            r"Mews|Row|Highway|Hwy|Parkway|Pkwy|Circle|Trail)\b\.?"
            rf"(?:,?\s(?:Apt|Apartment|Unit|Suite|Flat|#)\.?\s?\w{{1,5}})?(?:,\s{_CAP}(?:\s{_CAP}){{0,2}})?(?:,?\s[A-Z]{{2}}(?:\s\d{{5}}(?:-\d{{4}})?)?)?"
            r"(?:,?\s[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2})?",
            is_exact=True,
        ),
    ),
    (
        "address",
        _pattern(
            r"(?<![\w.])\d{1,5}[a-z]?\s(?:[a-z]+\s){1,3}(?:street|road|avenue|lane|drive|boulevard|terrace|"
            r"crescent)\b(?!\s(?:style|photo|fashion|light|scene))"
        ),
    ),
    ("address", _pattern(r"(?<!\w)(?:P\.?\s?O\.?\s?Box|Postfach|Apartado(?: de correos)?|BP)\s\d{2,6}\b")),
    ("address", _pattern(r"(?<!\w)[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}(?!\w)", is_exact=True)),
    ("address", _pattern(r"(?<!\w)[A-Z]\d[A-Z]\s\d[A-Z]\d(?!\w)", is_exact=True)),
    ("national_id", _pattern(r"(?<!\w)\d{2} ?[0-3]\d[01]\d{3} ?[A-Z] ?\d{2}[ ]?\d(?!\w)", is_exact=True)),
    ("address", _pattern(r"(?<!\w)[A-Z]{2}\s\d{5}(?:-\d{4})?(?![\w.])", is_exact=True)),
    (
        "address",
        _pattern(
            r"(?<!\w)(?:(?:[A-Z][\w-]{0,30}\s){0,2}[\w-]{0,30}(?i:strasse|straße|str\.|weg|allee|gasse|"
            r"ufer|damm|platz|chaussee|steig|promenade|(?<=[a-z])ring)|"
            rf"(?:Am|An der|Auf der|Im|In der|Unter den|Zum|Zur|Alte|Alter|Neue|"
            rf"Neuer)\s{_CAP}(?:\s{_CAP})?)\s\d{{1,4}}\s?[a-h]?(?![\w.]|\s?(?:mm|px)){_TOWN}",
            is_exact=True,
        ),
    ),
    (
        "address",
        _pattern(
            rf"(?<![\w-])(?:D-|F-|E-|A-)?\d{{5}}\s{_CAP}(?:[ -](?:am|an der|sur|de|la|Main|{_CAP})){{0,3}}",
            is_exact=True,
        ),
    ),
    (
        "address",
        _pattern(
            r"(?<![\w.])\d{1,4}(?:\s?(?:bis|ter|quater))?,?\s(?:rue|r\.|boulevard|bd|avenue|av\.|place|"
            r"allee|chemin|impasse|quai|cours|route|passage|square|faubourg|sentier|ruelle)\s"
            rf"(?:(?:de\s(?:la\s|l')?|du\s|des\s|d'|la\s|le\s|l')?[\w'-]+)(?:\s(?!(?:avec|dans|sur|pour|et|"
            rf"en|au|a|chez)\b)(?:de\s|du\s|des\s|la\s)?{_CAP}){{0,3}}{_TOWN}"
        ),
    ),
    (
        "address",
        _pattern(
            r"(?<!\w)(?:calle|c/|avenida|avda\.?|av\.|plaza|pza\.?|paseo|pº|camino|carrera|carretera|ronda|"
            r"travesia|callejon|via|gran via|rambla)\s?(?:de\s(?:la\s|los\s|las\s)?|del\s|la\s)?"
            rf"(?:[\w'-]+\s){{0,3}}?[\w'-]+,?\s(?:n\.?[ºo°]?\s?|numero\s|num\.?\s)?\d{{1,4}}(?![\w.]|"
            rf"\s?(?:mm|px|k\b))(?:,?\s\d{{1,2}}[ºo°]\s?\w{{0,5}})?{_TOWN}"
        ),
    ),
    (
        "handle",
        _pattern(
            r"(?<![\w@.+-])@(?!\d+(?:\.\d+)?\s?(?:mm|k|p|px|fps|s|hz|iso|dpi|ev|%|x)?\b(?!\w))(?!f/?\d|"
            r"iso\s?\d|t\d|1/\d)[A-Za-z0-9_](?:[\w.]{0,28}\w)?"
        ),
    ),
    ("handle", _pattern(r"(?<![\w/])(?:u|r|user)/[A-Za-z0-9_-]{3,30}")),
    ("handle", _pattern(r"(?<!\w)[\w.]{2,32}#\d{4}(?!\w)")),
    (
        "handle",
        _pattern(
            r"(?<!\w)(?:instagram|insta|ig|twitter|tiktok|snapchat|snap|telegram|discord|threads|mastodon|"
            r"bluesky|github|facebook|fb|linkedin|x)"
            r"(?:\s(?:handle|account|name|user(?:name)?|profile|profil|konto|compte|cuenta|"
            r"usuario))(?:\s(?:is|ist|est|es))?\s*[:=]?\s*@?(?P<x>[\w.]{3,30}\w)"
        ),
    ),
    (
        "handle",
        _pattern(
            r"(?<!\w)(?:instagram|insta|ig|twitter|tiktok|snapchat|telegram|discord|"
            r"skype)\s?[:=]\s?@?(?P<x>[\w.]{3,30}\w)"
        ),
    ),
    (
        "handle",
        _pattern(
            r"(?<!\w)(?:user ?name|nick ?name|handle|benutzername|pseudo|nombre de usuario|"
            r"nom d'utilisateur|usuario)\s*(?:is|ist|est|es|[:=])\s*@?(?P<x>[\w.-]{3,32})"
        ),
    ),
)
"""Entity and what finds it, in no order: `gateway.deidentify.text.scrub` settles overlaps."""


def warm_up() -> None:
    """Load everything that would be loaded when first needed: behind the walls no file can be read."""
    phonenumbers.PhoneMetadata.load_all()
    iban.is_valid("GB33BUKB20201555555555")
