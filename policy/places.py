"""Countries and subdivisions of ISO 3166, as far as a rule may hang on them."""

from __future__ import annotations

import re

_COUNTRIES = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO
FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE
JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO
MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW
PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM
TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW
"""
_UNION = "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE"
_US = """
AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR
PA RI SC SD TN TX UT VT VA WA WV WI WY DC AS GU MP PR UM VI
"""
_CA = "AB BC MB NB NL NS NT NU ON PE QC SK YT"

COUNTRIES = frozenset(_COUNTRIES.split())
"""The 249 of ISO 3166-1 alpha-2, and XK, which the standard leaves to users and everybody uses."""

_PARTS = {"US": frozenset(_US.split()), "CA": frozenset(_CA.split())}
"""The subdivisions of the countries whose law a pack divides; of others only the shape is looked at."""

_OTHER_NAMES = {"UK": "GB", "EL": "GR"}
_MARKETS = {"EU": tuple(_UNION.split()), "EEA": (*_UNION.split(), "IS", "LI", "NO")}
_SHAPE = re.compile(r"([A-Z]{2})(?:-([A-Z0-9]{1,3}))?", re.ASCII)


def place(code: str) -> str:
    """Return the code of a country or subdivision as rules compare it: upper case, `UK` as `GB`.

    Raises:
        ValueError: There is no such place.
    """
    match = _SHAPE.fullmatch(code.strip().upper())
    if match is None:
        raise ValueError("an ISO 3166 code is expected, such as DE or US-CA")
    land, part = _OTHER_NAMES.get(match[1], match[1]), match[2]
    if land not in COUNTRIES:
        raise ValueError("ISO 3166 knows no such country")
    if part is not None and land in _PARTS and part not in _PARTS[land]:
        raise ValueError(f"ISO 3166 knows no such subdivision of {land}")
    return land if part is None else f"{land}-{part}"


def is_place(code: str) -> bool:
    """Return whether ISO 3166 knows a place of this code."""
    try:
        return bool(place(code))
    except ValueError:
        return False


def markets(codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return places, each once; `EU` and `EEA` stand for their members.

    Raises:
        ValueError: One is no place.
    """
    found: dict[str, None] = {}
    for code in codes:
        name = code.strip().upper()
        found.update(dict.fromkeys(_MARKETS[name] if name in _MARKETS else (place(code),)))
    return tuple(found)
