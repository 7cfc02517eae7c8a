# Sourced by compare_routings.sh and reproduce_paper.sh.

# script_of VARIANT: prints the script that trains a variant, and its flags.
script_of() {
    case $1 in
        multitask) echo train_multitask_bart.sh ;;
        multitask_no_names) echo train_multitask_bart.sh --hide_task_names ;;
        average) echo train_avg_routing.sh ;;
        random) echo train_random_routing.sh ;;
        task_random) echo train_task_random_routing.sh ;;
        softmax) echo train_routing_bart.sh --router_mode softmax ;;
        gumbel) echo train_routing_bart.sh --router_mode gumbel_softmax ;;
        straight_through) echo train_routing_bart.sh ;;
        top_k) echo train_routing_bart.sh --router_mode top_k --router_top_k 2 ;;
        merged_parameters) echo train_routing_bart.sh --router_mode softmax --expert_mixing parameters ;;
        lstm | transformer) echo train_routing_bart.sh --router_nn_type "$1" ;;
        text | fisher) echo train_routing_bart.sh --freeze_task_model ;; # with TASKVECS
        fisher_clusters) echo train_routing_bart.sh --task_routes "clusters:${CLUSTERS:-auto}" ;; # with TASKVECS
        ontology) echo train_routing_bart.sh --task_routes ontology ;;
        gradient_routing | gradient_upcycled) echo run_gradient_routing.sh ;; # gradient_upcycled: with UPCYCLE=yes
        two_stage | fisher_two_stage) echo run_two_stage.sh ;;           # with STAGE1
    esac
}
export -f script_of
