"""A user's photos with what embeds them: searched, sorted by names, and judged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.adapter.library import found
from sglora_cli.config import RuntimeConfig, SearchConfig, checked
from sglora_cli.errors import BadFile, SgloraWarning, UnknownName, UsageError
from sglora_cli.files.images import printable_name
from sglora_cli.pack.recipe import PROMPTS
from sglora_cli.pack.recipe_parser import checked_prompts
from sglora_cli.plugin.host import Host
from sglora_cli.search.classes import Classes, class_names, classified
from sglora_cli.search.comparison import compared
from sglora_cli.search.encoder import Encoder
from sglora_cli.search.photos import PhotoList, check_few, photo_list
from sglora_cli.search.query import Query
from sglora_cli.search.relevance import Relevance, judged, relevant_photos
from sglora_cli.search.results import SearchResults, search
from sglora_cli.system.display import counted, html_table, quoted

Places = Path | str | Sequence[Path | str]
"""A folder, a text file with the path of a photo in each line, or the paths of photos."""


@dataclass(frozen=True)
class Album:
    """Photos that are searched, sorted and judged, without and with an adapter.

    Nothing is read before it is asked for. Photos are embedded once: the user cache keeps what is computed of them.
    """

    photos: PhotoList
    encoder: Encoder

    @classmethod
    def open(
        cls,
        photos: Places,
        adapter: Path | str | None = None,
        backbone: str = "",
        runtime: RuntimeConfig | None = None,
        host: Host | None = None,
    ) -> Album:
        """Photos with an adapter's file, in any format, or with its name in the user cache.

        backbone: its name. By default the one that the adapter is for, or that of the pack which a session takes.
        `Session.album` is for an adapter in memory. Raises BadFile, UsageError, UnknownName, and Mismatch for an
        adapter that does not fit the backbone.
        """
        listed = _listed(photos)
        path = found(Path(adapter)) if adapter is not None else None
        if path is not None and not path.exists():
            raise BadFile.missing(path, "adapter ")
        return cls(listed, Encoder.of(host or Host.load(), path, backbone, runtime or RuntimeConfig()))

    @classmethod
    def of(cls, photos: Places, encoder: Encoder) -> Album:
        """Photos with an encoder. Raises BadFile if there is no photo."""
        return cls(_listed(photos), encoder)

    def __repr__(self) -> str:
        place = "" if self._is_list else f"{quoted(str(self.photos.place))}: "
        return f"Album({place}{counted(len(self.photos.paths), 'photo')}; {self.encoder.line})"

    def _repr_html_(self) -> str:
        facts = {"photos": len(self.photos.paths), **self.encoder.facts}
        facts["passed over"] = "; ".join(map(str, self.photos.passed_over)) or None
        return html_table("album" if self._is_list else f"album {self.photos.place}", facts)

    @property
    def _is_list(self) -> bool:
        return self.photos.place == Path()

    def search(
        self,
        sentence: str = "",
        *,
        like: Path | str | None = None,
        within: str = "",
        strength: float = SearchConfig.strength,
    ) -> SearchResults:
        """Rank all photos for a sentence, for a photo that shows what is looked for (`like`), or for both.

        within: what all photos show, as a sentence. `strength`, from 0 to 1, is how much of its direction is taken out
        of the query. Raises UsageError if there is nothing to look for or only one photo, BadFile if no photo can be
        read, Mismatch for a text that is too long.
        """
        check_few(self.photos)
        photo = None if like is None else Path(like)
        if photo is not None and not photo.exists():
            raise BadFile.missing(photo, "photo ")
        query = Query.of(sentence, photo, within, checked(SearchConfig(strength)).strength)
        return search(self.encoder, self.photos.paths, query)

    def classify(self, names: Sequence[str], prompts: Sequence[str] = PROMPTS) -> Classes:
        """Give each photo one of two or more names, with its probability among them.

        prompts: texts with {class} in them; of several, the mean embedding counts. Raises UsageError for fewer names,
        BadFile if no photo can be read, Mismatch for a prompt that is too long.
        """
        wanted = class_names([names] if isinstance(names, str) else names, None)
        return classified(self.encoder, self.photos.paths, wanted, checked_prompts(list(prompts)))

    def judge(self, relevant: Places, sentences: str | Sequence[str] = ()) -> Relevance:
        """How well the right photos rank without and with the adapter, with a 95 % interval of the difference.

        relevant: a folder of the right photos, a file that lists them, a pattern such as "pug/*", or their names.
        sentences: what is looked for; without any, what the adapter was made for. Raises UsageError without an adapter
        or if no photo or every photo is right, UnknownName for a name of no photo, and otherwise as `search`. Warns of
        lines of a file that name no photo.
        """
        if self.encoder.adapter is None:
            raise UsageError("there is no adapter to judge", "open the album with one, as in session.album(photos, x)")
        check_few(self.photos)
        right = self._right(relevant)
        texts = [sentences] if isinstance(sentences, str) else sentences
        return judged(compared(self.encoder, self.photos.paths, "images", texts), right)

    def _right(self, relevant: Places) -> list[str]:
        photos = self.photos
        if isinstance(relevant, Path | str):
            names, strays = relevant_photos(str(relevant), photos.paths, photos.place)
            if strays:
                lines = f"{counted(len(strays), 'line')} of {relevant}"
                warnings.warn(f"no photo of {photos.place} for {lines} ({strays[0]})", SgloraWarning, stacklevel=3)
            return names
        name_of = {path.resolve(): name for name, path in photos.paths.items()}
        names = []
        for one in relevant:
            name = str(one) if str(one) in photos.paths else name_of.get(Path(one).resolve())
            if name is None:
                raise UnknownName.of("photo", str(one), photos.paths)
            names.append(name)
        return names


def _listed(photos: Places) -> PhotoList:
    if isinstance(photos, Path | str):
        return photo_list(Path(photos))
    paths = [Path(one) for one in photos]
    if not paths:
        raise BadFile("there is no photo in the list", "name a folder of photos, or the paths of some")
    if missing := next((path for path in paths if not path.exists()), None):
        raise BadFile.missing(missing, "photo ")
    return PhotoList(Path(), {printable_name(path): path for path in paths})
