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
finetune() { # set split start weights...
    tce finetune --data "$out/$1" --lists "$data/$1/lists" --split "$2" --savedir "$out/finetune/$1-$2-$3" \
        --model resnet18 --epochs "${EPOCHS:-12}" "${small[@]}" "${@:4}"
}
judge() { # set splits start protocol ckpt...
    tce evaluate --data "$out/$1" --lists "$data/$1/lists" --split "$2" --protocol "$4" \
        --image-size 64 --out "$out/judged/$1-$3-$4" --ckpt "${@:5}"
}
both() { # set splits protocol: an untrained network, and the one pre-trained on each split's training clips
    judge "$1" "$2" untrained "$3" random --model resnet18
    judge "$1" "$2" pretrained "$3" "$out/tce/$1-{split}"
}
pretrain gestures 01 24
pretrain gestures 02 40
pretrain gestures 03 21
pretrain fights 01 168
for task in "gestures 01" "gestures 02" "gestures 03" "fights 01"; do
    read -r set split <<<"$task"
    finetune "$set" "$split" random
    finetune "$set" "$split" tce --weights "$out/tce/$set-$split"
done
for start in random tce; do # the mean over the splits
    judge gestures 01,02,03 "$start" frames "$out/finetune/gestures-{split}-$start"
done
for protocol in knn linear retrieval coherence; do
    both gestures 01,02,03 "$protocol"
    both fights 01 "$protocol"
done

# side by side, the untrained or randomly initialised one first: differences are to it
tuned=() frozen=() coherent=()
for set in gestures fights; do
    for protocol in knn linear retrieval; do
        frozen+=("$out"/judged/$set-{untrained,pretrained}-$protocol)
    done
    coherent+=("$out"/judged/$set-{untrained,pretrained}-coherence)
done
tuned=("$out"/judged/gestures-{random,tce}-frames "$out"/finetune/fights-01-{random,tce})
pairs() { for ((i = 0; i < $1; i++)); do printf '%s\n' random TCE; done; }
compare() { # name runs...
    tce compare "${@:2}" --names $(pairs $((($# - 1) / 2))) --output "$out/$1.png"
}
compare finetune "${tuned[@]}"
compare frozen "${frozen[@]}"
compare coherence "${coherent[@]}"
