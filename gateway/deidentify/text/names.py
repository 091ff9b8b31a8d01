"""Names of people: by the phrase that announces them, by a title, by a given name that is in common use.

No model: a name that nothing announces and no list knows is not found.  What is
also a lens, a film, a style or a city is no name unless a phrase says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Final

from gateway.deidentify.text.fold import fold


def _lines(file: str) -> list[str]:
    text = (resources.files("gateway.deidentify.text") / file).read_text(encoding="utf-8")
    return [fold(line).text for line in text.splitlines() if not line.startswith("#")]


def _words(file: str) -> frozenset[str]:
    return frozenset(word.strip(",") for line in _lines(file) for word in line.split())


GIVEN: Final = _words("given.txt")
ARTISTS: Final = _words("artists.txt")
_WHOLE: Final = frozenset(name.strip() for line in _lines("artists.txt") for name in line.split(","))
"""The names of artists, each as it is said."""
JARGON: Final = _words("jargon.txt") | ARTISTS

_BY_TRADE: Final = ARTISTS | _words("trade.txt")
"""Jargon that is as often a family name; it is one right behind a given name."""
_BOTH: Final = _words("both.txt")
"""Jargon that is a given name as well: it is one where a phrase announces it and an unknown name follows."""
_PARTICLES: Final = _words("particles.txt")
_SMALL: Final = _words("small.txt")
_TOKEN: Final = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*\.?")
_ADJECTIVE: Final = re.compile(r".{2,}(?:ian|ish|ese|ean|esque|style|ic|punk|core|wave|ism|ist)\Z")
_NOUN: Final = (
    r"(?:photos?|photographs?|pictures?|pics?|portraits?|headshots?|head ?shots?|shots?|images?|selfies?|"
    r"painting|drawing|sketch|"
    r"likeness|face|avatar|closeup|close-up|render|fotos?|bild|bilder|fotografie|portrat|portraet|"
    r"bewerbungsfoto|bewerbungsbild|"
    r"profilbild|profilfoto|passfoto|nahaufnahme|aufnahme|gesicht|retratos?|imagen|fotografia|cara|"
    r"primer plano|photographie|cliche|visage|gros plan)"
)
_LINK: Final = (
    r"(?:de profil |de perfil )?(?:of|von|vom|de|d')\s+(?:(?:my|our|the|a|an|mein(?:e[mnr]?)?|"
    r"unser(?:e[mnr]?)?|mon|ma|"
    r"notre|mi|nuestr[oa])\s+)?"
)
_WHO: Final = (
    r"(?:wife|husband|boss|colleague|coworker|co-worker|friend|girlfriend|boyfriend|partner|daughter|son|"
    r"mother|father|mom|mum|dad|"
    r"sister|brother|aunt|uncle|cousin|grandma|grandpa|grandmother|grandfather|niece|nephew|neighbou?r|"
    r"client|customer|patient|"
    r"employee|teacher|ceo|cto|cfo|manager|director|founder|president|doctor|"
    r"frau|mann|chefin|chef|kollegin|kollege|kollegen|freundin|freund|tochter|sohn|mutter|vater|schwester|"
    r"bruder|tante|onkel|oma|opa|"
    r"nachbarin|nachbar|kundin|kunde|patientin|mitarbeiterin|mitarbeiter|lehrerin|geschaftsfuhrerin|"
    r"geschaftsfuhrer|"
    r"femme|mari|patronne|patron|collegue|ami|amie|fille|fils|mere|pere|s.?oeur|frere|tante|oncle|cousine|"
    r"voisine|voisin|cliente?|directrice|directeur|pdg|"
    r"esposa|esposo|marido|mujer|jefa|jefe|companer[oa]|colega|amig[oa]|novi[oa]|hij[oa]|madre|padre|"
    r"herman[oa]|ti[oa]|prim[oa]|"
    r"abuel[oa]|vecin[oa]|client[ea]|paciente|emplead[oa]|director[a]?)"
)


@dataclass(frozen=True, slots=True)
class _Cue:
    """A phrase before a name, and how little of a name is believed behind it."""

    pattern: re.Pattern[str]
    takes_any: bool = False
    """Any word that is not a small one, in whatever case."""
    takes_two: bool = False
    """Two capitalised words that no list knows."""
    takes_one: bool = False
    """One such word is enough."""


def _cue(pattern: str, **how: bool) -> _Cue:
    return _Cue(re.compile(rf"(?<!\w){pattern}", re.IGNORECASE), **how)


_CUES: Final = (
    _cue(
        r"(?:my (?:full |first |last )?name(?:'s| is)|mein (?:voller )?name (?:ist|lautet)|ich heisse|"
        r"ich heiße|je m'appelle|"
        r"mon nom est|mon nom, c'est|me llamo|mi nombre es|(?:his|her|their) name is|(?:sein|ihr) name ist|"
        r"(?:il|elle) s'appelle|(?:se|que se) llama|qui s'appelle|su nombre es|nombre es)[ :,]+",
        takes_any=True,
        takes_one=True,
    ),
    _cue(
        r"(?:(?:full |first |last |family |sur)?name|vorname|nachname|(?:nom|prenom)(?: et prenom)?|"
        r"nombre(?: y apellidos)?|apellidos?)"
        r"\s*[:=]\s*[\"']?",
        takes_any=True,
        takes_one=True,
    ),
    _cue(
        r"(?:named|called|by the name of|known as|namens|genannt|heisst|heißt|nommee?s?|appelee?s?|"
        r"prenommee?|llamad[oa]s?|"
        r"de nombre|the names?|den namen|le (?:pre)?nom|el nombre|signed by|dedicated to|tagged)\s+[\"']?",
        takes_one=True,
    ),
    _cue(rf"{_NOUN}\s+{_LINK}(?:{_WHO}\s+)?", takes_one=True),
    _cue(
        r"(?:my|our|his|her|the|meine[rmn]?|mein|unsere[rmn]?|unser|seine[rmn]?|ihre[rmn]?|mon|ma|notre|"
        r"son|sa|mi|nuestr[oa]|su)\s+"
        rf"(?:\w+\s+)?{_WHO},?\s+",
        takes_one=True,
    ),
    _cue(
        r"(?:i'm|i am|this is|here is|ich bin|das ist|hier ist|je suis|c'est|voici|soy|yo soy|est[ea] es|"
        r"aqui esta)\s+[\"']?",
        takes_two=True,
    ),
    _cue(
        r"(?:with|mit|avec|con|for|fur|pour|para|by|and|und|et|y|of|von|de|from|to|like|wie|comme|"
        r"como)\s+[\"']?"
    ),
    _cue(
        r"(?:badge|name ?tag|sign|caption|namensschild|namensschild(?:chen)?|etiquette|placa|text|reads?|"
        r"reading|says?|saying)\W{0,12}",
        takes_two=True,
    ),
)
_TITLE: Final = re.compile(
    r"(?<!\w)(?:(?:Mr|Mrs|Ms|Mx|Dr|Prof|Sr|Sra|Srta|Mme|Mlle|Hr|Fr|mr|mrs|ms|dr|prof|sra?|mme|mlle)\b\.?|"
    r"Miss\b|Professor(?:in)?\b|Sir\b|"
    r"Doktor\b|Herrn?\b|Frau\b|Fraulein\b|Monsieur\b|Madame\b|Mademoiselle\b|Senora?\b|Senorita\b|"
    r"senora?\b|Don\b|Dona\b|dona\b|"
    r"monsieur\b|madame\b|M\.|Me\.)\s*"
)
_BACKWARDS: Final = re.compile(r"(?<!\w)([^\W\d_]{2,}(?:-[^\W\d_]+)?),\s+([^\W\d_]{2,})")


@dataclass(frozen=True, slots=True)
class _Word:
    start: int
    end: int
    text: str

    @property
    def low(self) -> str:
        return self.text.lower().rstrip(".").removesuffix("'s")

    @property
    def is_capital(self) -> bool:
        return self.text[0].isupper()

    @property
    def is_initial(self) -> bool:
        return len(self.text) == 2 and self.text[1] == "." and self.is_capital

    @property
    def is_given(self) -> bool:
        return any(part in GIVEN for part in (self.low, *self.low.split("-")))

    @property
    def is_jargon(self) -> bool:
        return self.low in JARGON or self.low in _SMALL

    @property
    def is_code(self) -> bool:
        return len(self.text) <= 4 and len(self.text) > 1 and self.text.isupper() and not self.is_given


def find_names(text: str) -> Iterator[tuple[int, int]]:
    """Yield the ranges of folded text that name somebody; they may overlap."""
    words = [_Word(m.start(), m.end(), m.group()) for m in _TOKEN.finditer(text)]
    at = {word.start: index for index, word in enumerate(words)}
    for cue in _CUES:
        for match in cue.pattern.finditer(text):
            yield from _behind(text, words, at.get(match.end()), cue)
    for match in _TITLE.finditer(text):
        yield from _titled(text, words, at.get(match.end()))
    for index, word in enumerate(words):
        yield from _plain(text, words, index, word)
    for match in _BACKWARDS.finditer(text):
        last, first = (_Word(match.start(n), match.end(n), match.group(n)) for n in (1, 2))
        if last.is_capital and first.is_capital and first.is_given and not (last.is_jargon or last.is_given):
            yield match.span()


def unlisted_name(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield words of a range, two or more together, that are capitalised and that no list knows."""
    words = [_Word(m.start(), m.end(), m.group()) for m in _TOKEN.finditer(text, start, end)]
    index = 0
    while index < len(words):
        run = _run(text, words, index)
        if len([word for word in run if word.low not in _PARTICLES and not word.is_jargon]) > 1:
            yield run[0].start, _trimmed(run[-1])
        index += max(1, len(run))


def _behind(text: str, words: list[_Word], index: int | None, cue: _Cue) -> Iterator[tuple[int, int]]:
    if index is None:
        return
    run = _run(text, words, index)
    if not run:
        first = words[index]
        if (cue.takes_any and first.low not in _SMALL and not (first.is_jargon and not first.is_given)) or (
            first.is_given and not first.is_capital
        ):
            yield first.start, _small_run(text, words, index)
        return
    if _is_style(run) and not (cue.takes_one and len(run) == 1 and run[0].is_given):
        return
    unknown = [word for word in run if word.low not in _PARTICLES]
    is_long = len(unknown) > 1 and (cue.takes_one or cue.takes_two)
    is_short = cue.takes_one and not _ADJECTIVE.match(run[0].low)
    if any(word.is_given for word in run) or is_long or is_short:
        yield run[0].start, _trimmed(run[-1])


def _titled(text: str, words: list[_Word], index: int | None) -> Iterator[tuple[int, int]]:
    if index is None:
        return
    run = _run(text, words, index)
    first = words[index]
    if not run and first.is_capital and first.low in _BY_TRADE:
        run = [first]
    if run:
        yield run[0].start, _trimmed(run[-1])
    elif (
        not first.is_capital
        and not first.is_jargon
        and text[: first.start].rstrip(" .").lower().endswith(("mr", "mrs", "ms", "dr"))
    ):
        yield first.start, first.end


def _plain(text: str, words: list[_Word], index: int, word: _Word) -> Iterator[tuple[int, int]]:
    """Find a name without a phrase: a given name and what follows, `Anna's`, `J. K. Brandt`."""
    if not word.is_capital or (index and _joined(text, words[index - 1], word) and words[index - 1].is_given):
        return
    run = _run(text, words, index)
    if not run or _is_style(run):
        return
    if (word.is_given or word.is_initial) and len(run) > 1:
        yield run[0].start, _trimmed(run[-1])
    elif word.is_given and word.text.endswith("'s"):
        yield word.start, word.end - 2


def _run(text: str, words: list[_Word], index: int) -> list[_Word]:
    """Return the words from `index` on that may be one name together."""
    run: list[_Word] = []
    for place, word in enumerate(words[index : index + 6], index):
        if run and not _joined(text, run[-1], word):
            break
        if run and word.low in _PARTICLES and not word.is_given:
            run.append(word)
            continue
        if not word.is_capital or word.is_code:
            break
        if word.is_jargon and not word.is_given and not (run and run[-1].is_given and word.low in _BY_TRADE):
            # An artist's name is known as a whole; a given name before it is in the list, too.
            following = words[place + 1 : place + 2]
            if not run and word.low in _BOTH and _is_unknown(text, word, following):
                run.append(word)
                continue
            if run and word.low in JARGON and all(w.low in JARGON for w in run):
                run.append(word)
                continue
            break
        run.append(word)
        if word.text.endswith(".") and not word.is_initial:
            break
        if word.text.endswith("'s"):
            break
    while run and run[-1].low in _PARTICLES and not run[-1].is_given:
        run.pop()
    return run


def _is_unknown(text: str, word: _Word, following: list[_Word]) -> bool:
    """Tell whether what follows the word is a capitalised word that no list knows."""
    return any(
        _joined(text, word, other)
        and other.is_capital
        and not other.is_code
        and (not other.is_jargon or other.low in _BY_TRADE)
        for other in following
    )


def _small_run(text: str, words: list[_Word], index: int) -> int:
    """Return where a name in small letters ends: one word, and the next if it is none of every day."""
    first = words[index]
    following = words[index + 1] if index + 1 < len(words) else None
    if following is not None and _joined(text, first, following):
        is_plain = following.low in _SMALL or (following.low in JARGON and following.low not in _BY_TRADE)
        if not is_plain and not following.low.endswith(("ing", "ed")):
            return _trimmed(following)
    return _trimmed(first)


def _joined(text: str, first: _Word, second: _Word) -> bool:
    gap = text[first.end : second.start]
    return (gap == "" and first.is_initial) or (gap.isspace() and len(gap) <= 2 and "\n" not in gap)


def _is_style(run: list[_Word]) -> bool:
    """Tell whether all of it is jargon: an artist by the whole name, a city, a lens."""
    if not all(word.low in JARGON or word.low in _PARTICLES for word in run):
        return False
    name = " ".join(word.low for word in run)
    if len(run) == 1:
        return not run[0].is_given or name in _WHOLE
    return name in _WHOLE or not any(word.low in ARTISTS for word in run)


def _trimmed(word: _Word) -> int:
    end = word.end
    if word.text.endswith(".") and not word.is_initial:
        end -= 1
    return end - 2 if word.text.endswith("'s") else end
