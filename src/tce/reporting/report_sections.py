"""The report page's sections of figures: with labels, without, groups, maps, and what is found alike."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tce.reporting.charts import Bar, Curve, curves, dots, escape, lollipops, matrix, scatter, short
from tce.reporting.comparison import KNN, RETRIEVAL, Compared, Looked, Network, confusion_of, few_name
from tce.reporting.own_adaptation import Stability
from tce.reporting.report_pictures import Alike, Pictures
from tce.reporting.report_words import percent, percent_range
from tce.reporting.verdict import difference_words

KINDS = ("other", "third", "fourth")
MOST_CONFUSED = 40  # classes of a confusion matrix


def network_kinds(found: Compared) -> dict[str, str]:
    """The colour of each network."""
    others = [one.name for one in found.networks if one.role not in ("start", "untrained")]
    kinds = {one.name: one.role for one in found.networks}
    return kinds | {name: KINDS[place % len(KINDS)] for place, name in enumerate(others)}


def _share_bars(
    figures: Mapping[str, Any], found: Compared, name: str, kinds: Mapping[str, str]
) -> list[Bar]:
    bars = []
    for one in found.networks:
        entry = figures["networks"][one.name].get(name)
        value = None if entry is None else entry["value"]
        interval = None if entry is None or entry["interval"] is None else tuple(entry["interval"])
        text = "not measured" if value is None else percent(value, interval)
        scaled = None if value is None else 100 * value
        ends = None if interval is None else (100 * interval[0], 100 * interval[1])
        if value is not None or one.role not in ("centred",):
            bars.append(Bar(one.name, scaled, ends, kinds[one.name], text))
    return bars


def _difference_bars(one: Network, names: Sequence[str]) -> list[Bar]:
    bars = []
    for name in names:
        apart = one.against.get(name)
        if apart is None:
            continue
        ends = None if apart.interval is None else (100 * apart.interval[0], 100 * apart.interval[1])
        kind = "none" if ends is None or ends[0] <= 0 <= ends[1] else "better" if ends[0] > 0 else "worse"
        bars.append(Bar(name, 100 * apart.gain, ends, kind, difference_words(apart)))
    return bars


def _difference_chart(one: Network, names: Sequence[str]) -> str:
    bars = _difference_bars(one, names)
    if not bars:
        return ""
    ends = [end for bar in bars for end in (bar.interval or ()) + ((bar.value or 0.0),)]
    low, high = min([*ends, -5.0]), max([*ends, 5.0])
    room = 0.06 * (high - low)
    chart = dots(bars, low - room, high + room, "points more than the start", f"{one.name} less the start")
    return (
        f'<div class="card"><figure><h3>{escape(one.name)} less the start</h3>{chart}<figcaption>The '
        f"difference on "
        "the same clips, with its 95% interval over recordings. Green: the interval lies above 0; red: "
        "below; "
        "grey: it holds 0, no difference seen.</figcaption></figure></div>"
    )


def labelled_section(figures: Mapping[str, Any], found: Compared, kinds: Mapping[str, str]) -> str:
    """kNN, differences, recordings, few labels, linear classifier and confusions; there must be labels."""
    assert found.split is not None
    labels, split = figures["labels"], found.split
    chance = 100 * labels["chance"]
    bars = _share_bars(figures, found, KNN, kinds)
    shares = dots(bars, 0, 100, "percent of the test clips", "kNN accuracy", {"chance": chance})
    lead = found.judged[0] if found.judged else None
    few = [few_name(shot) for shot in (found.start.labels.few if found.start.labels else {})]
    parts = [
        "<h2>With labels</h2>"
        f"<p>{len(split.classes)} classes, {labels['tested']:,} tested clips; training and test clips: "
        f"{escape(labels['chosen'])}. Labels are used to measure, never to adapt.</p>",
        f'<div class="card"><figure><h3>Do the nearest clips name the class?</h3>{shares}<figcaption>kNN '
        f"accuracy: the "
        "nearest training clips vote for their class. Bars are 95% intervals over recordings, for each "
        "network by "
        "itself; differences on the same clips are far more certain and stand below.</figcaption></figure>"
        "</div>",
    ]
    if lead is not None:
        parts.append(_difference_chart(lead, (KNN, *few, "linear classifier")))
        apart = lead.against.get(KNN)
        if apart is not None and apart.recordings > 2:
            words = f"{lead.name} is better in {apart.better}, worse in {apart.worse} and equal in the others"
            parts.append(
                f'<div class="card"><figure><h3>Recording by recording</h3>'
                f"{lollipops(apart.each, words)}<figcaption>"
                f"kNN accuracy of {escape(lead.name)} less the start's, in points, for each of "
                f"{apart.recordings} test "
                f"recordings: better in {apart.better}, worse in {apart.worse}.</figcaption></figure></div>"
            )
    parts.append(_few_chart(figures, found, kinds, labels["chance"]))
    parts.append(_linear_table(figures, found))
    parts.append(_confusions(found, lead))
    return "".join(parts)


def _few_chart(figures: Mapping[str, Any], found: Compared, kinds: Mapping[str, str], chance: float) -> str:
    lines = []
    for one in found.networks:
        if one.labels is None or len(one.labels.few) < 2:
            continue
        points = {}
        for shot in one.labels.few:
            entry = figures["networks"][one.name][few_name(shot)]
            points[shot] = (entry["value"], None if entry["interval"] is None else tuple(entry["interval"]))
        lines.append(Curve(one.name, kinds[one.name], points))
    if not lines:
        return ""
    chart = curves(lines, chance, "accuracy with few labels", "labelled clips of each class")
    return (
        f'<div class="card"><figure><h3>With few labelled clips</h3>{chart}<figcaption>Percent of the test '
        f"clips whose "
        "class the nearest centroid of so many labelled clips a class names; mean of 20 random draws. "
        "Bands: 95%, over "
        "draws and recordings.</figcaption></figure></div>"
    )


def _linear_table(figures: Mapping[str, Any], found: Compared) -> str:
    names = [KNN, "linear classifier"]
    rows = []
    for one in found.networks:
        entries = figures["networks"][one.name]
        cells = []
        for name in names:
            entry = entries.get(name)
            value = "-" if entry is None else percent(entry["value"])
            ends = "" if entry is None or entry["interval"] is None else percent_range(entry["interval"])
            apart = one.against.get(name)
            gain = "" if apart is None else difference_words(apart)
            cells.append(
                f'<td class="n">{value}<br><small>{ends}</small></td><td class="n">{escape(gain)}</td>'
            )
        rows.append(f"<tr><td><b>{escape(one.name)}</b></td>{''.join(cells)}</tr>")
    head = "<tr><th>network</th>" + "".join(
        f'<th class="n">{escape(name)}</th><th class="n">less the start</th>' for name in names
    )
    return (
        f'<div class="card scroll"><table>{head}</tr>{"".join(rows)}</table><p class="soft">The linear '
        "classifier is a logistic regression on each clip's mean vector. With few training clips it can "
        "rank networks otherwise than distances do.</p></div>"
    )


def _confusions(found: Compared, lead: Network | None) -> str:
    assert found.split is not None
    if len(found.split.classes) > MOST_CONFUSED:
        return ""
    shown = [one for one in (found.start, lead) if one is not None and one.labels is not None]
    if not shown:
        return ""
    figures = []
    for one in shown:
        counts, pairs = confusion_of(one, found.split)
        words = "; ".join(f"{short(true)} as {short(named)} ({count})" for true, named, count in pairs[:3])
        figures.append(
            f'<div class="card"><figure><h3>{escape(one.name)}</h3>'
            f"{matrix(counts, found.split.classes, f'confusion of {one.name}')}"
            f"<figcaption>"
            f"{escape('Commonest mistakes: ' + words if words else 'No mistakes')}.</figcaption></figure>"
            f"</div>"
        )
    return (
        "<h2>What is confused with what</h2><p>By kNN. Each row is a true class; a column is the class "
        "that was named, "
        "in percent of the row's clips. Green is right.</p>"
        f'<div class="two">{"".join(figures)}</div>'
    )


def unlabelled_section(
    figures: Mapping[str, Any], found: Compared, kinds: Mapping[str, str], stability: Stability
) -> str:
    """Frames that find their own clip, coherence, rank and stability."""
    parts = [
        "<h2>Without labels</h2><p>Frames of a clip's first half look for the clip whose second half is "
        "nearest, among "
        "clips that are held out together. The adaptation is measured by maps that have not seen the clip's "
        "recording.</p>"
    ]
    bars = _share_bars(figures, found, RETRIEVAL, kinds)
    if found.start.retrieval is not None:
        chance = 100 * found.start.retrieval.chance
        chart = dots(bars, 0, 100, "percent of the frames", RETRIEVAL, {"chance": chance})
        parts.append(
            f'<div class="card"><figure><h3>Do frames find their own clip?</h3>{chart}<figcaption>The '
            f"share that does, "
            "with 95% intervals over recordings. It says whether what stays the same through a clip is "
            "recognised, not "
            "whether your classes are told apart.</figcaption></figure></div>"
        )
        lead = found.judged[0] if found.judged else None
        apart = None if lead is None else lead.against.get(RETRIEVAL)
        if lead is not None and apart is not None and found.split is None and apart.recordings > 2:
            words = f"better in {apart.better}, worse in {apart.worse}"
            parts.append(
                f'<div class="card"><figure><h3>Recording by recording</h3>'
                f"{lollipops(apart.each, words)}<figcaption>"
                f"Share of frames that find their own clip with {escape(lead.name)} less that with the "
                f"start, in points, "
                f"for each of {apart.recordings} recordings: {words}.</figcaption></figure></div>"
            )
    parts.append(_motion_table(figures, found))
    parts.append(_stability(stability))
    return "".join(parts)


def _motion_table(figures: Mapping[str, Any], found: Compared) -> str:
    columns = (
        ("separation", "separation", "{:.2f}"),
        ("smoothness", "smoothness", "{:.2f}"),
        ("curvature", "curvature", "{:.0f}°"),
        ("within", "within a clip", "{:.3f}"),
        ("across", "across recordings", "{:.3f}"),
        ("effective_rank", "effective rank", "{:.0f}"),
    )
    rows = []
    for one in found.networks:
        entries = figures["networks"][one.name]
        if one.motion is None:
            continue
        cells = []
        for key, _, form in columns:
            value = entries["motion"].get(key)
            if key == "separation":
                value = entries.get("separation", {}).get("value")
            cells.append(f'<td class="n">{"-" if value is None else form.format(value)}</td>')
        rows.append(f"<tr><td><b>{escape(one.name)}</b></td>{''.join(cells)}</tr>")
    if not rows:
        return ""
    head = "".join(f'<th class="n">{title}</th>' for _, title, _ in columns)
    return (
        f'<div class="card scroll"><h3>Coherence in time, rank and collapse</h3><table><tr><th>network</th>'
        f"{head}</tr>"
        f'{"".join(rows)}</table><p class="soft">Separation: how far a clip\'s own second half stands out '
        f"from the others', "
        "in standard deviations. Smoothness: 1 where frames that follow one another are the same, 0 where "
        "they are as far "
        "apart as recordings. Curvature: angle between one step in time and the next. Within, across: mean "
        "cosine "
        "distance. Effective rank: how many dimensions are in use; a small one is a sign of collapse. An "
        "untrained "
        "network is smooth as well, since neighbouring frames are nearly the same picture.</p></div>"
    )


def _stability(stability: Stability) -> str:
    gains = stability.gains
    if not gains:
        return ""
    low, high = 100 * min(gains), 100 * max(gains)
    agreement = "" if stability.agreement is None else (
        f" The two maps of a halving agree on {stability.agreement:.0%} of the five nearest clips."
    )  # fmt: skip
    positive = sum(gain > 0 for gain in gains)
    return (
        '<div class="card"><h3>Stability</h3><p>The adaptation has no random start. Fitted to one random '
        "half of the "
        f"recordings and checked on the other, {len(gains)} times, it gained between {low:+.1f} and "
        f"{high:+.1f} points "
        f"over the start ({positive} of {len(gains)} above 0).{agreement}</p></div>"
    )


def groups_section(found: Compared, looked: Looked) -> str:
    """Whether groups are recognised; empty where none are named."""
    shown = [one for one in found.networks if one.group is not None]
    if looked.groups is None or not shown:
        return ""
    rows = "".join(
        f'<tr><td><b>{escape(one.name)}</b></td><td class="n">'
        f"{percent(float(np.nanmean(one.group.hits)))}</td>"
        f'<td class="n">{percent(one.group.chance)}</td></tr>'
        for one in shown
        if one.group is not None
    )
    return (
        "<h2>Are people or cameras recognised in place of content?</h2><p>The nearest clips of other "
        "recordings vote for "
        f"the group of each clip ({len(set(looked.groups))} groups). Far above chance, similar clips may "
        f"be similar because "
        "they show the same person, camera or place.</p>"
        '<div class="card scroll"><table><tr><th>network</th><th class="n">group named rightly</th>'
        f'<th class="n">chance</th></tr>{rows}</table></div>'
    )


def maps_section(pictures: Pictures) -> str:
    """Maps of the clips before and after; empty for a few clips."""
    if not pictures.maps:
        return ""
    names = [str(number) for number in pictures.shown]
    cards = "".join(
        f'<div class="card"><figure><h3>{escape(name)}</h3>'
        f"{scatter(points, pictures.kinds, names, f'map of {name}')}"
        "</figure></div>"
        for name, points in pictures.maps.items()
    )
    legend = "".join(
        f'<span><svg viewBox="0 0 10 10"><circle cx="5" cy="5" r="5" class="k{place}"/></svg>'
        f"{escape(short(name, 32))}</span>"
        for place, name in enumerate(pictures.legend)
    )
    return (
        f"<h2>Maps of the clips</h2><p>t-SNE of {len(pictures.shown):,} clips or pieces, coloured by "
        f"{escape(pictures.coloured_by)}. Distances between far groups mean little, and the adapted map "
        f"was fitted to "
        "these clips (without labels).</p>"
        f'<div class="two">{cards}</div><div class="legend">{legend}</div>'
    )


def alike_section(pictures: Pictures, found: Compared, looked: Looked) -> str:
    """Some clips and their nearest ones by each network."""
    if not pictures.alike or not any(pictures.alike[0].nearest.values()):
        return ""
    names = list(pictures.alike[0].nearest)
    heads = "".join(f"<h3>{escape(name)}</h3>" for name in names)
    rows = "".join(_alike_row(one, names, found, looked) for one in pictures.alike)
    outline = " Outlined green: of the same class; red: of another." if found.split is not None else ""
    several = len(set(looked.recordings)) > 1
    return (
        "<h2>What each network finds alike</h2><p>Some clips, chosen at random, and the nearest clips of "
        f"{'other recordings' if several else 'other times'}, the nearest first.{outline}</p>"
        f'<div class="card alike{" one" if len(names) == 1 else ""}"><h3>clip</h3>{heads}{rows}</div>'
    )


def _alike_row(one: Alike, names: Sequence[str], found: Compared, looked: Looked) -> str:
    cells = [f'<div class="row first">{_shot(one.query, None, found, looked)}</div>']
    for name in names:
        shots = "".join(_shot(number, one.query, found, looked) for number in one.nearest[name])
        cells.append(f'<div class="row">{shots}</div>')
    return "".join(cells)


def _shot(number: int, query: int | None, found: Compared, looked: Looked) -> str:
    """One small picture with its clip's name, or its class."""
    clip = int(looked.owners[number])
    kind, words = "", short(str(looked.catalog.ids[clip]).rpartition("/")[2], 26)
    if found.split is not None:
        label = found.split.labels[clip]
        words = short(found.split.classes[label], 20) if label >= 0 else "no class"
        if query is not None:
            kind = " same" if label == found.split.labels[looked.owners[query]] else " differs"
    image = base64.b64encode(looked.pictures[number]).decode("ascii")
    return (
        f'<div class="shot{kind}"><img src="data:image/jpeg;base64,{image}" alt="{escape(words)}">'
        f"{escape(words)}</div>"
    )
