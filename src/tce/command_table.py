"""The table of commands: where each one's function and options live, and what its help shows.

To add a command, add a line here: the options' module in `tce.options` gives flags, help and defaults.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """Where a command lives; both places are `module:name`, and the options' module imports no torch.

    Attributes:
        function: takes the options and returns a result.
        options: a frozen dataclass, or one of such groups.
        help: what it does, an imperative.
        examples: command lines for the end of its help.
        usual: flags that `--help` shows, without dashes; the others need `--help-all`. Empty: all.
        recipes: folder of tce/recipes with this command's named recipes.
    """

    function: str
    options: str
    help: str
    examples: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()
    recipes: str = ""


COMMANDS = {
    "demo": Command(
        "tce.commands.demo:demo",
        "tce.options.demo:DemoOptions",
        "See it work on generated clips, within three minutes",
        ("tce demo", "tce demo --out demo", "tce demo --epochs 2 --json"),
    ),
    "pack": Command(
        "tce.data.pack:pack",
        "tce.options.pack:PackOptions",
        "Pack videos or frame folders into a collection, which trains and evaluates faster",
        (
            "tce pack videos/ --out collection",
            "tce pack recordings/ --out collection --clip-seconds 10 --fps 10",
            "tce pack UCF-101/ --out ucf101 --lists UCF_list --split 01",
        ),
        (
            *("footage", "out", "lists", "split", "short_side", "every", "fps", "clip_seconds", "add"),
            *("split_scenes", "keep_damaged", "replace", "workers", "dry_run"),
        ),
    ),
    "check": Command(
        "tce.data.check:check",
        "tce.options.check:CheckOptions",
        "List videos that cannot be read, or damaged clips of a collection",
        ("tce check videos/", "tce check videos/ --deep", "tce check collection --json"),
    ),
    "adapt": Command(
        "tce.adaptation.adapt:adapt",
        "tce.options.adapt:AdaptOptions",
        "Adapt a pre-trained network to unlabelled videos, in closed form or by training its last blocks",
        (
            "tce adapt videos/ --out runs/mine",
            "tce adapt more-videos/ --out runs/mine --add",
            "tce adapt videos/ --out runs/mine --method contrastive --minutes 15",
        ),
        (
            *("footage", "out", "method", "minutes", "start", "lists", "split", "group", "add", "resume"),
            *("force", "frames_per_clip", "fps", "horizon", "image_size", "embedding_size", "workers"),
        ),
    ),
    "pretrain": Command(
        "tce.train.pretrain:pretrain",
        "tce.options.pretrain:PretrainOptions",
        "Pre-train a frame encoder on unlabelled videos",
        (
            "tce pretrain videos/ --out runs/mine --recipe quick",
            "tce pretrain videos/ --out runs/mine --resume",
            "tce pretrain collection --out runs/split01 --lists UCF_list --split 01 --epochs 50",
        ),
        (
            *(
                "data",
                "out",
                "recipe",
                "method",
                "lists",
                "split",
                "model",
                "weights",
                "image_size",
                "epochs",
            ),
            *("batch_size", "lr", "seed", "workers", "device", "precision", "resume", "force", "show"),
        ),
        "pretrain",
    ),
    "embed": Command(
        "tce.embedding.embed_command:embed_inputs",
        "tce.options.embed:EmbedOptions",
        "Embed the frames of videos: vectors with video, frame number and time",
        (
            "tce embed --ckpt runs/mine --input clip.mp4 --output clip.npz",
            "tce embed --ckpt runs/mine --input videos/ --every 5 --output videos.npz",
            "tce embed --ckpt resnet50.pth --input a.mp4 b.mp4 frames/ --output some.npz --json",
        ),
    ),
    "index": Command(
        "tce.retrieval.indexing:index",
        "tce.options.index:IndexOptions",
        "Index the frames of videos for search; new, changed and vanished videos are brought up to date",
        (
            "tce index videos/ --ckpt lite2 --db index --fps 5",
            "tce index videos/ --ckpt runs/mine --db index --every 8",
            "tce index collection --ckpt runs/mine --db index",
        ),
        (
            *("footage", "db", "ckpt", "every", "fps", "lists", "split", "center", "layer", "image_size"),
            *("batch_size", "device", "precision", "engine"),
        ),
    ),
    "search": Command(
        "tce.retrieval.search_index:search",
        "tce.options.search:SearchOptions",
        "Find the moments of indexed videos that are like a clip, a frame or an image",
        (
            "tce search --db index --video clip.mp4 --from 1 --to 3",
            "tce search --db index --image photo.jpg --sheet found.png",
            "tce search --db index --frame cam1.mp4:12.5 --exclude-same-video --page found.html",
        ),
    ),
    "near-duplicates": Command(
        "tce.retrieval.near_duplicates:near_duplicates",
        "tce.options.near_duplicates:NearDuplicatesOptions",
        "Find copies and overlapping pieces among videos, and leaks between training and test lists",
        (
            "tce near-duplicates videos/ --page copies.html",
            "tce near-duplicates index --mirror --csv copies.csv",
            "tce near-duplicates videos/ --lists lists/ --split 01 --csv leaks.csv",
        ),
        (
            *("footage", "against", "lists", "split", "mirror", "threshold", "ckpt", "fps", "db"),
            *("csv", "sheet", "page", "image_size", "device"),
        ),
    ),
    "subset": Command(
        "tce.retrieval.subset:subset",
        "tce.options.subset:SubsetOptions",
        "Choose diverse frames of an index for labelling, with outliers and typical frames",
        (
            "tce subset index --size 100 --csv frames.csv",
            "tce subset index --size 100 --per-video 5 --sheet frames.png",
            "tce subset index --size 50 --outliers 20 --typical 0 --json",
        ),
    ),
    "tsne": Command(
        "tce.visualize.tsne:tsne",
        "tce.options.tsne:TsneOptions",
        "Draw a t-SNE map of videos, as a picture or a film",
        (
            "tce tsne --ckpt runs/mine --input a.mp4 b.mp4 --output map.png",
            "tce tsne --ckpt runs/mine --input a.mp4 --vid --output film.mp4",
            "tce tsne --embeddings videos.npz --map map.npz --output map.svg",
        ),
        (
            *(
                "output",
                "input",
                "embeddings",
                "vid",
                "color_by",
                "lists",
                "split",
                "table",
                "theme",
                "title",
            ),
            *("ckpt", "model", "every", "map", "fps", "tail", "perplexity", "init", "exaggeration"),
            *("iterations", "save_embeddings", "image_size", "device", "seed"),
        ),
    ),
    "heat": Command(
        "tce.visualize.heat:heat",
        "tce.options.heat:HeatOptions",
        "Draw how similar the frames of a video are, or align two videos, as a picture or film",
        (
            "tce heat clip.mp4 --output heat.png",
            "tce heat a.mp4 b.mp4 --ckpt runs/mine --output heat.png",
            "tce heat a.mp4 b.mp4 --output in_step.mp4",
        ),
        (
            *("videos", "output", "ckpt", "every", "thumbnails", "theme", "title", "fps", "save_embeddings"),
            *("image_size", "device"),
        ),
    ),
    "explore": Command(
        "tce.explorer.explore:explore",
        "tce.options.explore:ExploreOptions",
        "Write a page to explore the frames of videos: map, players, labels; no server needed",
        (
            "tce explore videos/ --output page.html",
            "tce explore videos/ --ckpt runs/mine --compare lite2 --output page.html",
            "tce explore videos.npz --output page.html",
        ),
        (
            *("footage", "output", "ckpt", "compare", "lists", "split", "table", "fps", "max_frames"),
            *("embed_video", "parquet", "title", "seed", "workers", "device"),
        ),
    ),
    "discover": Command(
        "tce.discovery.discover:discover",
        "tce.options.discover:DiscoverOptions",
        "Find behaviours and phases without labels: segments, example clips, time budgets",
        (
            "tce discover videos/ --ckpt lite2 --out discovery",
            "tce discover discovery",
            "tce discover new-videos/ --apply discovery --out discovery-new",
        ),
        (
            *("footage", "out", "ckpt", "apply", "fps", "window", "method", "clusters", "shortest", "bout"),
            *("center", "labels", "group", "lists", "split", "examples", "refits", "seed", "device"),
        ),
    ),
    "cycles": Command(
        "tce.discovery.cycles:cycles",
        "tce.options.cycles:CyclesOptions",
        "Count repetitions in a video, with their period over time",
        (
            "tce cycles squats.mp4",
            "tce cycles squats.mp4 --output cycles.png --csv cycles.csv",
            "tce cycles steps.mp4 --ckpt runs/mine --fps 30 --shortest 0.2 --longest 1",
        ),
        ("video", "ckpt", "output", "csv", "fps", "shortest", "longest", "threshold", "device"),
    ),
    "finetune": Command(
        "tce.commands.finetune:finetune",
        "tce.options.finetune:FinetuneOptions",
        "Train an action classifier on labelled clips, and test it",
        (
            "tce finetune --data videos/ --lists lists/ --weights runs/mine --savedir runs/classifier",
            "tce finetune --data videos/ --weights runs/mine --savedir runs/classifier --labels 5/class",
            "tce finetune --data videos/ --lists lists/ --split all --savedir runs/scratch",
        ),
        (
            *("data", "lists", "split", "weights", "savedir", "recipe", "model", "image_size"),
            *("labels", "freeze", "epochs", "batch_size", "lr", "seed", "workers", "device", "precision"),
            *("resume", "evaluate", "force", "show"),
        ),
        "finetune",
    ),
    "evaluate": Command(
        "tce.evaluation.evaluate:evaluate",
        "tce.options.evaluate:EvaluateOptions",
        "Evaluate a checkpoint by a protocol: kNN, linear probe, retrieval, coherence, classification",
        (
            "tce evaluate --ckpt runs/mine --data videos/ --lists lists/ --split 01 --protocol all",
            "tce evaluate --ckpt random --model resnet18 --data videos/ --protocol knn",
            "tce evaluate --ckpt runs/classifier --data videos/ --lists lists/ --protocol frames --json",
        ),
        (
            *("ckpt", "data", "protocol", "lists", "split", "model", "out", "samples", "crop", "image_size"),
            *("layer", "center", "k", "labels", "shots", "group", "seed", "workers", "device", "precision"),
            "engine",
        ),
    ),
    "compare": Command(
        "tce.evaluation.compare:compare",
        "tce.options.compare:CompareOptions",
        "Compare several results in one table and one chart, with paired differences",
        (
            "tce compare evaluation/untrained evaluation/mine",
            "tce compare runs/a runs/b --names A B --output compare.png",
            "tce compare evaluation/a evaluation/b --metric top1 --json",
        ),
    ),
    "report": Command(
        "tce.reporting.footage_report:report",
        "tce.options.report:ReportOptions",
        "Report whether adapting was worth it on your videos: start, adapted, runs, and a verdict",
        (
            "tce report videos/ --out report",
            "tce report videos/ --ckpt runs/mine runs/other --out report",
            "tce report clips/ --lists lists/ --split 01 --group group --out report",
        ),
        (
            *("footage", "out", "ckpt", "names", "start", "lists", "split", "no_labels", "group"),
            *("max_clips", "frames_per_clip", "image_size", "k", "seed", "workers", "device"),
        ),
    ),
    "classify": Command(
        "tce.evaluation.classify:classify",
        "tce.options.classify:ClassifyOptions",
        "Classify videos with a fine-tuned network, over all and along time",
        (
            "tce classify clip.mp4 --ckpt runs/classifier",
            "tce classify videos/ --ckpt runs/classifier --output classes.csv",
            "tce classify clip.mp4 --ckpt runs/classifier --top 3 --output along.png",
        ),
    ),
    "convert": Command(
        "tce.model.export:convert",
        "tce.options.convert:ConvertOptions",
        "Convert a checkpoint of any known format to model.safetensors",
        (
            "tce convert old.pth --output model.safetensors",
            "tce convert resnet50.pth --output folder/",
            "tce convert lite2 --output lite2.safetensors",
        ),
    ),
    "export": Command(
        "tce.model.export:export",
        "tce.options.export:ExportOptions",
        "Export a checkpoint to ONNX, checked against ONNX Runtime",
        (
            "tce export --ckpt runs/classifier --output classifier.onnx",
            "tce export --ckpt runs/mine --output encoder.onnx --raw",
            "tce export --ckpt lite2 --output lite2.onnx --image-size 192",
        ),
    ),
    "publish": Command(
        "tce.publishing.publish:publish",
        "tce.options.publish:PublishOptions",
        "Publish a network with a model card, to a folder or to the Hugging Face Hub",
        (
            "tce publish runs/mine --to shared/mine",
            "tce publish runs/mine --to hf://owner/name --results evaluation/mine --private",
            "tce publish runs/mine --to shared/mine --about 'wing beats of 12 flies, 2 cameras'",
        ),
    ),
    "doctor": Command(
        "tce.diagnosis.doctor:doctor",
        "tce.options.doctor:DoctorOptions",
        "Check this installation and machine, and print a report to paste into an issue",
        ("tce doctor", "tce doctor --folder /data --output doctor.txt", "tce doctor --audit"),
    ),
    "info": Command(
        "tce.commands.info:info",
        "tce.options.info:InfoOptions",
        "Describe a checkpoint, run, collection, dataset, embeddings or video",
        ("tce info videos/ --sheet sheet.png", "tce info runs/mine", "tce info clip.mp4"),
    ),
}


# What to do next, printed after a command's result; names in braces are its options. `tce info` has one for
# each type of what it describes, and kind of network. Commands whose result ends with its own next step are
# not listed.
NEXT = {
    "pack": "tce adapt {out} --out runs/mine",
    "check": "tce adapt {footage} --out runs/mine",
    "adapt": "tce embed --ckpt {out} --input FOLDER --output embeddings.npz",
    "embed": "tce tsne --embeddings {output} --output map.png",
    "search": "tce search --db {db} --video CLIP.mp4 --page found.html, to play what was found",
    "near-duplicates": "tce near-duplicates {footage} --page copies.html, to watch the pairs",
    "subset": "tce search --db {db} --frame VIDEO:SECONDS --page found.html, for more like one of them",
    "tsne": "tce evaluate --ckpt {ckpt} --data FOLDER_OF_CLASSES --protocol knn",
    "evaluate": "tce evaluate --ckpt OTHER --data {data} --protocol {protocol}, then tce compare",
    "report": "open {out}/report.html in a browser",
    "compare": "tce info RESULT_FOLDER for the whole protocol of one of them",
    "classify": "tce export --ckpt {ckpt} --output classifier.onnx",
    "convert": "tce info {output}",
    "export": "tce info {output}",
    "publish": "tce info {to}",
    "doctor": "tce demo, or tce explore FOLDER --output page.html for your own videos",
    "index": "tce search --db {db} --video CLIP.mp4 --sheet found.png",
    "heat": "tce tsne --ckpt {ckpt} --input FOLDER --output map.png",
    "explore": "open {output} in a browser; tce adapt FOLDER --out runs/mine fits the network to your videos",
    "discover": "tce explore FOOTAGE --table {out}/segments.csv --output page.html",
    "cycles": "tce discover FOLDER --ckpt lite2 --out discovery",
    "info dataset": "tce explore {path} --output page.html, then tce adapt {path} --out runs/mine",
    "info collection": "tce adapt {path} --out runs/mine",
    "info video": "tce embed --ckpt lite2 --input {path} --output embeddings.npz",
    "info embeddings": "tce tsne --embeddings {path} --output map.png",
    "info encoder": "tce embed --ckpt {path} --input FOLDER --output embeddings.npz",
    "info classifier": "tce classify FOLDER --ckpt {path}",
    "info result": "tce compare {path} OTHER_RESULT",
}


def resolve(place: str) -> Any:
    """The object at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
