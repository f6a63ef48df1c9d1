"""The command `tce report`: was it worth it on this footage?"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tce.adaptation.adapt import with_linear_head
from tce.adaptation.statistics import FILE_NAME, FootageStatistics
from tce.data.collection import is_collection
from tce.data.open_data import open_store
from tce.data.read_catalog import read_catalog
from tce.data.sampling import spread
from tce.data.splits import group_names
from tce.errors import OptionError, TceError
from tce.io import Result, atomic, require_writable, write_json, writer_lock
from tce.model.checkpoint import save_model, tensors_hash
from tce.model.encoder import ADAPTED
from tce.reporting.candidates import ADAPTED_NAME, Candidate, fill, load_candidates
from tce.reporting.comparison import Compared, Looked, compare_networks, note_limits
from tce.reporting.footage_features import FootageFeatures
from tce.reporting.own_adaptation import OwnAdaptation, Stability, adapt_to, fold_of_pieces, stability_of
from tce.reporting.report_figures import describe_report, headline
from tce.reporting.report_page import build_report_page
from tce.reporting.report_pictures import Pictures, make_pictures
from tce.reporting.report_text import build_report_text
from tce.reporting.with_labels import LabelSplit, split_labels

if TYPE_CHECKING:
    from tce.data.catalog import Catalog
    from tce.data.frame_store import FrameStore
    from tce.options.report import ReportOptions

log = logging.getLogger("tce.reporting")

LEAST_PIECES = 3
PAGE, TEXT, DATA, ADAPTED_FOLDER = "report.html", "report.md", "report.json", "adapted"


def report(options: ReportOptions) -> Result:
    """Compare the start, its adaptation or given networks, and an untrained one on your own footage.

    Writes report.html, one page without scripts or network; report.md and report.json with the same figures;
    `features/`, from which an interrupted or repeated report continues; and `adapted/`, the adapted network,
    an ordinary run. Each clip is decoded once, and its frames pass each network once.

    Args:
        options: footage, networks, labels and groups.

    Returns:
        The content of report.json: `headline`, `networks` with figures, intervals, differences to the start
        and verdicts, `limits`, `cautions`, `versions`, `seconds`.

    Raises:
        OptionError: options that contradict each other, or a folder that holds a run.
        TceError: no footage, too little of it, a network that cannot be read, or a folder that cannot be
            written or is in use.
        KeyboardInterrupt: interrupted; the features seen so far are kept, and the same command continues.
    """
    with _locked(Path(options.out)):
        return _Report(options).run()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    for name in ("options.json", "model.safetensors", "log.csv"):
        if (folder / name).exists():
            raise OptionError(f"--out {folder}", "a folder for a report", f"a run ({name})", "choose another")
    require_writable(folder / PAGE, "--out")
    with writer_lock(folder / ".lock", f"--out {folder}", "tce report", "--out"):
        yield


@dataclass
class _Report:
    """One run of the command."""

    options: ReportOptions
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> Result:
        options, folder = self.options, Path(self.options.out)
        with self._timed("reading networks"):
            candidates = load_candidates(options)
        catalog, store = self._clips()
        settings = {"footage": options.footage, "frames_per_clip": options.frames_per_clip}
        features = FootageFeatures(folder / "features", settings)
        with self._timed("decoding and networks"):
            features.look(
                catalog,
                store,
                list({one.backbone.key: one.backbone for one in candidates}.values()),
                options.batch_size,
                options.workers,
                options.timeout,
                options.engine,
                options.precision,
            )
        catalog = self._seen(catalog, features)
        with self._timed("adaptation"):
            looked, own, stability = self._adapt(catalog, features, candidates)
        with self._timed("figures"):
            split = "--no-labels was given" if options.no_labels else self._split(catalog, store)
            found = compare_networks(candidates, looked, split, options.k, options.seed, options.group)
            note_limits(found, looked, own.why_not if not options.ckpt else "")
        with self._timed("pictures"):
            pictures = make_pictures(candidates, found, looked, options.seed)
        return self._write(candidates, looked, own, stability, found, pictures, features)

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        log.info("report: %s", stage)
        started = time.monotonic()
        yield
        self.seconds[stage] = round(time.monotonic() - started, 2)

    def _clips(self) -> tuple[Catalog, FrameStore | None]:
        """The clips to look at, and the collection that holds their frames, if it is one."""
        options = self.options
        store: FrameStore | None = None
        if is_collection(options.footage):
            store = open_store(options.footage, options.lists, options.split)
            catalog = store.catalog
        else:
            catalog = read_catalog(options.footage, options.lists, options.split)
        if len(catalog) > options.max_clips:
            rows = np.array(spread(len(catalog), options.max_clips), np.int64)
            log.info("looking at %d of %d clips (--max-clips)", len(rows), len(catalog))
            catalog = catalog.select(rows)
            store = None if store is None else store.select(rows)
        if options.group is not None:
            group_names(catalog, options.group)  # a wrong pattern shows before the work
        return catalog, store

    def _seen(self, catalog: Catalog, features: FootageFeatures) -> Catalog:
        """The clips that could be read."""
        rows = np.array([row for row, name in enumerate(catalog.ids) if name in features.clips], np.int64)
        pieces = sum(len(features.clips[name].times) for name in catalog.ids[rows])
        if pieces >= LEAST_PIECES:
            return catalog.select(rows)
        reason = next(iter(features.skipped.values()), "")
        raise TceError(
            self.options.footage,
            expected=f"{LEAST_PIECES} clips or more, or a recording of some minutes",
            found=f"{len(rows)} that can be read" + (f" ({reason})" if reason else ""),
            fix="give more footage; tce check FOOTAGE lists what cannot be read",
        )

    def _split(self, catalog: Catalog, store: FrameStore | None) -> LabelSplit | str:
        given = self.options.lists is not None or store is not None
        return split_labels(catalog, given, self.options.seed)

    def _adapt(
        self, catalog: Catalog, features: FootageFeatures, candidates: list[Candidate]
    ) -> tuple[Looked, OwnAdaptation, Stability]:
        """Fill the candidates with vectors, and adapt the start unless runs were given."""
        options, start = self.options, candidates[0]
        ids = [str(name) for name in catalog.ids]
        clips = [features.clips[name] for name in ids]
        pieces = [clip.pieces(start.backbone.key) for clip in clips]
        recordings = [str(name) for name in catalog.sources]
        groups = None if options.group is None else group_names(catalog, options.group)
        for one in candidates:
            fill(one, clips, ids)
        statistics = FootageStatistics(start.encoder.feature_size, self._settings(start))
        own, stability = OwnAdaptation(), Stability()
        if options.ckpt:
            statistics.place(recordings)
        else:
            own = adapt_to(statistics, ids, recordings, pieces, groups)
            self._add_adapted(candidates, own)
            if own.validation is not None:
                stability = stability_of(recordings, pieces, own.validation.shrinkage, options.seed)
        looked = Looked(
            catalog,
            np.repeat(np.arange(len(clips)), [len(clip.times) for clip in clips]),
            fold_of_pieces(statistics, recordings, pieces),
            groups,
            [picture for clip in clips for picture in clip.pictures],
            sum(len(times) for clip in clips for times in clip.times),
        )
        return looked, own, stability

    def _settings(self, start: Candidate) -> dict[str, Any]:
        """What `tce adapt --add` compares: the same as it writes for these frames."""
        return {
            "start": tensors_hash(start.encoder.backbone.state_dict()),
            "image_size": start.backbone.shape.size,
            "crop": start.backbone.shape.resize,
            "frames_per_clip": self.options.frames_per_clip,
            "fps": None,
            "horizon": None,
            "group": self.options.group,
        }

    def _add_adapted(self, candidates: list[Candidate], own: OwnAdaptation) -> None:
        """The adapted network as a candidate, after the start."""
        if own.map is None and own.held is None:
            return
        start = candidates[0]
        size = start.backbone.shape.size
        config = dataclasses.replace(start.encoder.config, image_size=size)
        encoder = with_linear_head(type(start.encoder)(config, start.encoder.backbone).eval(), own.map)
        adapted = Candidate(ADAPTED_NAME, "adapted", start.backbone, encoder, held=own.held)
        if own.map is not None:
            adapted.source = str(Path(self.options.out) / ADAPTED_FOLDER)
            adapted.pieces = [own.map(rows).astype(np.float32) for rows in start.pieces]
        candidates.insert(1, adapted)

    def _write(
        self,
        candidates: list[Candidate],
        looked: Looked,
        own: OwnAdaptation,
        stability: Stability,
        found: Compared,
        pictures: Pictures,
        features: FootageFeatures,
    ) -> Result:
        options, folder = self.options, Path(self.options.out)
        adapted = next((one for one in candidates if one.role == "adapted" and one.pieces), None)
        if adapted is not None and own.statistics is not None and own.validation is not None:
            own.statistics.save(folder / ADAPTED_FOLDER / FILE_NAME)
            provenance = {
                "made": ADAPTED,
                "clips": own.statistics.sketch(),
                "settings": own.statistics.settings,
                "weights": {"path": candidates[0].source},
            }
            save_model(folder / ADAPTED_FOLDER, adapted.encoder, provenance)
        figures = describe_report(options, looked, own, stability, found, features, self.seconds)
        with atomic(folder / PAGE, "w") as file:
            file.write(build_report_page(figures, found, looked, pictures, stability))
        with atomic(folder / TEXT, "w") as file:
            file.write(build_report_text(figures, found))
        write_json(folder / DATA, figures)
        lines = [headline(found, options.footage)]
        lines += [f"{one.name}: {one.verdict.text}" for one in found.judged[1:] if one.verdict is not None]
        lines.append(f"wrote {folder / PAGE}, {TEXT}, {DATA}" + (f", {ADAPTED_FOLDER}/" if adapted else ""))
        return Result("\n".join(lines), figures)
