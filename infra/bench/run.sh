#!/usr/bin/env bash
# The figures of the README that need no GPU, one JSON object a line, on a toy world no model has seen.
set -euo pipefail
cd "$(dirname "$0")/../.."
toy=build/bench/toy
[ -f $toy/truth.jsonl ] || framemill toyworld $toy --videos 30 --images 10 --seed 4242

figure() { printf '%s\t' "$*"; "$@" --json; }
figure framemill bench shots --media $toy --truth $toy/truth.jsonl
figure framemill captioner eval --toyworld $toy
figure framemill vae eval --media $toy
figure framemill vae eval --media infra/media
figure framemill train eval --run builtin: --prompts 128
figure framemill bench dedup --media $toy --truth $toy/truth.jsonl
figure framemill bench analyze --media infra/media
figure framemill bench judge --rows 20000
figure framemill bench nodes
figure framemill bench images
figure framemill bench growth
