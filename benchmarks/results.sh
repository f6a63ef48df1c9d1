#!/usr/bin/env bash
# The commands behind the second half of docs/results.md: fine-tuning and every protocol, from random weights and from a
# TCE checkpoint, on gestures splits 01-03 and fights. One core, bf16, 64 pixels: a small budget, the same for both.
#
#   bash benchmarks/results.sh DATA OUT      DATA holds gestures/ and fights/, each with videos/ and lists/
set -euo pipefail
data=$1 out=$2
mkdir -p "$out"
export OMP_NUM_THREADS=1
small=(--image-size 64 --precision bf16)

for set in gestures fights; do
    tce pack "$data/$set/videos" --out "$out/$set" --short-side 80
done

# Pre-training on the training clips of each split, without their labels: about 43,000 images each.
pretrain() { # set split epochs
    tce pretrain "$out/$1" --lists "$data/$1/lists" --split "$2" --out "$out/tce/$1-$2" --epochs "$3" --resume \
        --monitor-epochs 0 "${small[@]}"
}
finetune() { # set split kind flags...: from random weights, and from the network pre-trained on the training clips
    for start in random tce; do
        weights=()
        [ $start = random ] || weights=(--weights "$out/tce/$1-$2")
        tce finetune --data "$out/$1" --lists "$data/$1/lists" --split "$2" --savedir "$out/finetune/$1-$2-$3-$start" \
            --model resnet18 "${small[@]}" "${weights[@]}" "${@:4}"
    done
}
evaluate() { # set splits start protocol ckpt...
    tce evaluate --data "$out/$1" --lists "$data/$1/lists" --split "$2" --protocol "$4" \
        --image-size 64 --out "$out/evaluated/$1-$3-$4" --ckpt "${@:5}"
}
both() { # set splits protocol: an untrained network, and the one pre-trained on each split's training clips
    evaluate "$1" "$2" untrained "$3" random --model resnet18
    evaluate "$1" "$2" pretrained "$3" "$out/tce/$1-{split}"
}
pretrain gestures 01 24
pretrain gestures 02 40
pretrain gestures 03 21
pretrain fights 01 168
for split in 01 02 03; do
    finetune gestures $split short --epochs 12
    finetune gestures $split long --epochs 60 --validate-epochs 20
    finetune gestures $split few --epochs 60 --validate-epochs 60 --labels 5/class --held-out 0
done
finetune fights 01 short --epochs 12
for start in random tce; do # the means over the splits
    for kind in short long few; do
        evaluate gestures 01,02,03 "$kind-$start" frames "$out/finetune/gestures-{split}-$kind-$start"
    done
    evaluate fights 01 "short-$start" frames "$out/finetune/fights-01-short-$start"
done
for protocol in knn linear retrieval coherence; do
    both gestures 01,02,03 "$protocol"
    both fights 01 "$protocol"
done

# Side by side, the untrained or randomly initialised one first: differences are to it.
compare() { # what the first of each two is called, name of the chart, runs by twos
    names=()
    for ((i = 3; i <= $#; i += 2)); do names+=("$1" TCE); done
    tce compare "${@:3}" --names "${names[@]}" --output "$out/$2.png"
}
frozen=()
for set in gestures fights; do
    for protocol in knn linear retrieval; do
        frozen+=("$out"/evaluated/$set-{untrained,pretrained}-$protocol)
    done
done
compare untrained frozen "${frozen[@]}"
compare untrained coherence "$out"/evaluated/gestures-{untrained,pretrained}-coherence "$out"/evaluated/fights-{untrained,pretrained}-coherence
for kind in long few; do
    compare random finetune-$kind "$out"/evaluated/gestures-$kind-{random,tce}-frames
done
compare random finetune-short "$out"/evaluated/gestures-short-{random,tce}-frames "$out"/evaluated/fights-short-{random,tce}-frames
tce compare "$out"/evaluated/gestures-{short,long,few}-{random,tce}-frames --output "$out/finetune.png" --names \
    "12 epochs, random" "12 epochs, TCE" "60 epochs, random" "60 epochs, TCE" "5 labels a class, random" "5 labels a class, TCE"
