# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # variables of methods.txt, and those that compare_methods.sh sets
# Sourced for each run of compare_methods.sh: the functions that the commands of methods.txt are made of.
# Variables: GYM, BART, WIDE, BASE, SEED, RATE, DIR of a run; CONFLICT, WIDTH, STEPS, SKILLS, GYM_FLAGS, MORE of all.
source "${BASH_SOURCE[0]%/*}/../setup.sh"

TOOLS=example_scripts/methods HIDE=--hide_task_names LORA="--expert_kind lora --lora_rank 4 --lora_alpha 4"
FIRST=$((STEPS * 14 / 25)) DELTAS=$((STEPS * 6 / 25)) REST=$((STEPS * 11 / 25)) LAST=$((STEPS * 5 / 25))
LEARNED="--num_experts 4 --init_eps 1e-2 --router_lr 1e-2 --task_model_lr 1e-2 --taskvecs_dim 16 --minimum_tau 0.3
    --anneal_rate $(awk "BEGIN { print 2.3 / $REST }")"
POLY="--shared_base --num_experts $SKILLS --lora_mixing factors --router_nn_type table --router_mode bernoulli
    --initial_tau 1 --minimum_tau 1 --anneal_rate 0 --task_model_lr 1e-2"
common() {
    echo "--train_dir $GYM --model $BART --max_input_length 16 --max_output_length 8 --num_beams 1 --train_batch_size 64
        --gradient_accumulation_steps 2 --max_grad_norm 100 --eval_period $STEPS --learning_rate $RATE --seed $SEED $MORE"
}
base() { # the gym, untrained BARTs for it, and one that is trained without task names
    routing-moe conflict-gym --conflict "$CONFLICT" --seed "$SEED" $GYM_FLAGS --output_dir "$GYM"
    routing-moe conflict-gym bart --gym "$GYM" --seed "$SEED" --width "$WIDTH" --output_dir "$BART"
    routing-moe conflict-gym bart --gym "$GYM" --seed "$SEED" --width $((4 * WIDTH)) --output_dir "$WIDE"
    fit . --num_experts 1 $HIDE --total_steps "$FIRST"
}
fit() { routing-moe train --resume $(common) --total_steps "$STEPS" "${@:2}" --output_dir "$DIR/$1"; } # FOLDER FLAGS ...
grow() { fit "$1" --vanilla_checkpoint "$BASE" --total_steps "$REST" "${@:2}"; } # FOLDER FLAGS ...: from the base
along() { grow . $HIDE --shared_base --task_routes "$@"; } # ROUTES FLAGS ...: an expert for each group
library() { grow library --do_train $HIDE $LORA --task_routes tasks --total_steps "$1"; } # STEPS: tasks apart
tool() { $([ -z "$DRY_RUN" ] || echo echo) "$PYTHON" "$TOOLS/$1.py" "${@:2}"; } # NAME WORDS ...: a program of methods/
found() { # METHOD RUN FOLDER
    tool find_groups "$1" --run "$2" --groups "$SKILLS" --seed "$SEED" --output_dir "$DIR/${3:-groups}"
}
deltas() { # FLAGS ...: the search of cross_loss alone
    grow deltas --do_train $HIDE $LORA --shared_base --contested_above 1 --task_routes tasks --total_steps "$DELTAS" "$@" &&
        routing-moe transfer "$DIR/deltas"
}
vectors() { # METHOD FLAGS ...: clusters of task vectors
    routing-moe vectors "$1" --train_dir "$GYM" --tasks train --model "$BASE" --max_input_length 16 "${@:2}" --quiet \
        --output_dir "$DIR/vectors" && along "clusters:$SKILLS" --taskvecs "$DIR/vectors"
}
ifca() { # random groups, then five trainings with moves between them
    local run=$BASE from="--vanilla_checkpoint $BASE" part
    for part in round1 round2 round3 round4 .; do
        found ifca "$run" "groups/$part" && run=$DIR/$part
        fit $part $([ $part = . ] || echo --do_train) $from $HIDE --shared_base \
            --task_routes "$DIR/groups/$part/groups.json" --total_steps $((REST / 5))
        from="--checkpoint $run/best"
    done
}
merged() { # MERGER FLAGS ...: one model of the experts
    library "$REST" && { [ -f "$DIR/merged/best/config.json" ] || routing-moe average --runs "$DIR/library" \
        --merger "$@" --output_dir "$DIR/merged/best"; } && scores "$DIR/merged/best"
}
scores() { # CHECKPOINT FLAGS ...: of what is made of the library, whose settings and cost the run has
    rm -f "$DIR/run.json"
    for section in test train; do
        routing-moe train --do_predict $(common) $HIDE --checkpoint "$@" --predict_split $section --output_dir "$DIR"
    done
    [ -n "$DRY_RUN" ] || cp "$DIR/library/run.json" "$DIR/library/cost.json" "$DIR/"
}
