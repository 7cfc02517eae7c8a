"""Which vector or route a task gets, for training, prediction, fine-tuning and answering.

    choice.py        TaskChoice: the vector or the route of a task, and where it comes from
    choose.py        Chooser: the first source that has something for the task
    texts.py         text vectors of tasks, and the nearest task
    clusters.py      the clusters of given routes, and the nearest cluster
    lowest_loss.py   the route of lowest loss on a few labelled rows
    learned.py       a vector or a route that is learned from a few labelled rows
    given_vectors.py vectors of --taskvecs, which may have a row for each sample
    given_routes.py  routes of --task_routes: of a file, of the ontology, of clusters

May import: results and below, dataloader.
"""
