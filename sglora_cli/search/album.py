"""A user's photos with an encoder: search, classify and judge them."""

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
"""A folder, a text file with one photo path per line, or the paths of photos."""


@dataclass(frozen=True)
class Album:
    """Photos to search, classify and judge, with an optional adapter.

    Photos are read on demand. Their embeddings are computed once and cached in the user cache.
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
        """Open photos with an optional adapter, given by its file in any format or by its name in the user cache.

        backbone: name of the backbone. By default the adapter's backbone, or that of the pack that a session uses.
        For an adapter in memory, use `Session.album`. Raises BadFile, UsageError, UnknownName, and Mismatch for an
        adapter that does not fit the backbone.
        """
        listed = _listed(photos)
        path = found(Path(adapter)) if adapter is not None else None
        if path is not None and not path.exists():
            raise BadFile.missing(path, "adapter ")
        return cls(listed, Encoder.of(host or Host.load(), path, backbone, runtime or RuntimeConfig()))

    @classmethod
    def of(cls, photos: Places, encoder: Encoder) -> Album:
        """Open photos with an encoder. Raises BadFile if there are no photos."""
        return cls(_listed(photos), encoder)

    def __repr__(self) -> str:
        place = "" if self._is_list else f"{quoted(str(self.photos.place))}: "
        return f"Album({place}{counted(len(self.photos.paths), 'photo')}; {self.encoder.line})"

    def _repr_html_(self) -> str:
        facts = {"photos": len(self.photos.paths), **self.encoder.facts}
        facts["skipped files"] = "; ".join(map(str, self.photos.passed_over)) or None
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
        """Rank all photos for a sentence, for a similar photo (`like`), or for both.

        within: a sentence for what all photos show.  strength: the share of its direction, from 0 to 1, to remove from
        the query. Raises UsageError for an empty query or a single photo, BadFile if no photo can be read, Mismatch for
        a text that is too long.
        """
        check_few(self.photos)
        photo = None if like is None else Path(like)
        if photo is not None and not photo.exists():
            raise BadFile.missing(photo, "photo ")
        query = Query.of(sentence, photo, within, checked(SearchConfig(strength)).strength)
        return search(self.encoder, self.photos.paths, query)

    def classify(self, names: Sequence[str], prompts: Sequence[str] = PROMPTS) -> Classes:
        """Assign one of two or more names to each photo, with its probability.

        prompts: strings with {class}; the embeddings of several prompts are averaged. Raises UsageError for fewer than
        two names, BadFile if no photo can be read, Mismatch for a prompt that is too long.
        """
        wanted = class_names([names] if isinstance(names, str) else names, None)
        return classified(self.encoder, self.photos.paths, wanted, checked_prompts(list(prompts)))

    def judge(self, relevant: Places, sentences: str | Sequence[str] = ()) -> Relevance:
        """Measure how well relevant photos rank without and with the adapter, with a 95 % interval of the difference.

        relevant: a folder of relevant photos, a file that lists them, a pattern such as "pug/*", or their names.
        sentences: the queries, by default the adapter's description. Raises UsageError without an adapter, or if no
        photo or every photo is relevant, UnknownName for an unknown photo, and the errors of `search`. Warns about
        lines of a file that match no photo.
        """
        if self.encoder.adapter is None:
            raise UsageError("there is no adapter to judge", "open the album with one: session.album(photos, adapter)")
        check_few(self.photos)
        chosen = self._relevant(relevant)
        texts = [sentences] if isinstance(sentences, str) else sentences
        return judged(compared(self.encoder, self.photos.paths, "images", texts), chosen)

    def _relevant(self, relevant: Places) -> list[str]:
        photos = self.photos
        if isinstance(relevant, Path | str):
            names, strays = relevant_photos(str(relevant), photos.paths, photos.place)
            if strays:
                lines = f"{counted(len(strays), 'line')} of {relevant}"
                warnings.warn(f"no photo of {photos.place} matches {lines} ({strays[0]})", SgloraWarning, stacklevel=3)
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
        raise BadFile("the list has no photos", "pass a folder of photos, or a list of paths")
    if missing := next((path for path in paths if not path.exists()), None):
        raise BadFile.missing(missing, "photo ")
    return PhotoList(Path(), {printable_name(path): path for path in paths})
