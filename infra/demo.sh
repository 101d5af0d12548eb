#!/usr/bin/env bash
# From raw video to a trained model: every verb of framemill once, on small real input.
# Writes demo/ and nothing else; run it again and what is done is not done twice.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
say() { printf '\n\033[1m%s\033[0m\n' "== $* ($((SECONDS - started)) s)"; }

say "1. Raw input: a rendered toy world (exact truth) beside four real clips"
[ -f demo/raw/toy/truth.jsonl ] || framemill toyworld demo/raw/toy --videos 10 --images 6 --seed 2026

say "2. Analyze, judge, caption, encode and report, on Ray"
framemill run demo/raw infra/media --out demo/corpus --executor ray

say "3. Every shard checked; some latents decoded back and compared with their source"
framemill verify demo/corpus

say "4. Continue the bundled model on these shards"
framemill train demo/corpus --out demo/run --init builtin: --steps 40 --set val_every=10 --set checkpoint_every=20

say "5. Sample the trained model: two videos and an image"
sample() { # name, size, frames, prompt
  [ -s "demo/run/samples/$1" ] ||
    framemill sample --checkpoint demo/run --size "$2" --frames "$3" --prompt "$4" --out "demo/run/samples/$1"
}
sample demo-0.mp4 96x64 17 "A large red circle moves to the right on a plain blue background."
sample demo-1.mp4 64x96 17 "A small yellow star moves upward on a plain green background."
sample demo-2.png 96x64 1 "A large white square in the centre of a plain purple background."

say "6. The report, with the training curve and the samples"
framemill report demo/corpus --run demo/run

say "Done"
cat <<TABLE
  what                 where
  raw input            demo/raw/toy, infra/media
  corpus               demo/corpus            (framemill status demo/corpus)
  latent shards        demo/corpus/latents/default/shard-*.tar
  training run         demo/run               (metrics.jsonl, checkpoints/)
  samples              demo/run/samples
  report               demo/corpus/report/index.html
TABLE
