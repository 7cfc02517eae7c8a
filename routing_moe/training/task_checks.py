"""Whether the tasks of a run fit its model: vectors, routes, and the scores that they would overwrite."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataloader.errors import InputError, in_short, problem_context
from dataloader.task_splits import Split
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.config.train import ROUTING_FLAGS, TrainSettings
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.task_choice.choice import VectorTable
from routing_moe.task_choice.given_routes import (
    check_routes_differ,
    check_scored_spec,
    described,
    file_matrices,
    names_file,
)
from routing_moe.task_choice.given_vectors import GivenVectors
from routing_moe.task_choice.texts import TextSource

if TYPE_CHECKING:
    from routing_moe.model.configuration import RoutingBartConfig


def refuse(problems: str | list[str]) -> None:
    """Raises InputError if there are problems."""
    if problems:
        raise InputError(problems)


def trained_on(config: "RoutingBartConfig", split: Split) -> set[str]:
    """Returns the tasks that a checkpoint was trained on; if it lists none, the split's train tasks."""
    return set(config.trained_tasks or split.train)


@dataclass(frozen=True)
class TaskChecks:
    """Whether each task of a run can have a vector or route in the model that the run starts with.

    config: that of the model. checkpoint: its folder; None: it is new. texts: of the tasks.
    """

    settings: TrainSettings
    split: Split
    config: "RoutingBartConfig"
    checkpoint: Path | None
    texts: TextSource

    @property
    def scored(self) -> set[str]:
        """The tasks that --do_predict scores."""
        return set(self.split.section(self.settings.predict_split))

    def check(self, has_new_routes: bool) -> None:
        """Raises InputError. has_new_routes: whether routes of all train tasks are given to the training."""
        if self.config.routes_by_task and not has_new_routes:
            self.check_known_tasks()
        if self.settings.do_predict:
            self.check_prediction()

    def check_known_tasks(self) -> None:
        """Raises InputError for tasks that need a vector or route of the model, which has none for them."""
        settings, config = self.settings, self.config
        needed = set(self.split.train) if settings.do_train else set()
        # Other tasks get the vector of their nearest task or, among given routes, equal weights.
        stored_only = settings.task_vector == "stored" if config.has_router else not config.given_routes
        if (
            settings.do_predict
            and stored_only
            and not (config.route_source == "fixed" and settings.task_routes)
        ):
            needed |= self.scored
        if settings.by_loss:  # other tasks get the route of one of these
            needed = trained_on(config, self.split) & self.scored
        missing = in_short(sorted(needed - set(config.task_names)))
        if missing and self.checkpoint is None:
            raise InputError(f"--taskvecs {settings.taskvecs} has no vector for {missing}")
        if missing:
            kind = "task vector" if config.has_router else "route"
            hint = "; without --task_vector stored, others get the vector of their nearest task"
            raise InputError(
                f"{self.checkpoint} has no {kind} for {missing}; it knows the tasks of the split that it was "
                f"trained with{hint if config.has_router else ''}"
            )

    def check_prediction(self) -> None:
        """Raises InputError for tasks that cannot be given a vector or route, and for scores of other routes.

        A task without either gets that of its nearest task by text.
        """
        settings, config, split = self.settings, self.config, self.split
        given = set()
        if self.checkpoint and not settings.do_train:
            self.check_scored_routes()
            given = self.tasks_with_given_vectors()
            if not settings.prefix:
                self.check_overwriting()
        if config.has_router and not settings.by_loss:
            is_new = self.checkpoint is None and not settings.taskvecs
            random = set(config.task_names if is_new else config.random_vectors) - given
            random -= set(split.train if settings.do_train else ())
            table = VectorTable({*config.task_names, *given}, random, split.train)
            needing = table.needing_nearest(split.section(settings.predict_split), settings.task_vector)
        elif config.given_routes and settings.task_vector == "nearest" and not settings.task_routes:
            table = VectorTable(config.task_names, (), split.train)
            needing = sorted(self.scored - table.known - given)
        else:
            return
        if needing:
            self.texts.check(needing, table.seen)

    def check_scored_routes(self) -> None:
        """Raises InputError for --task_routes of a prediction that do not fit tasks or model."""
        settings, config = self.settings, self.config
        if settings.by_loss:
            with problem_context("--task_routes "):
                check_routes_differ(config)
        elif settings.task_routes and names_file(settings.task_routes):
            file_matrices(settings.task_routes, self.split.section(settings.predict_split), config)
        elif settings.task_routes and described(settings.start) != config.given_routes:
            with problem_context("--task_routes "):
                check_scored_spec(settings.task_routes)

    def tasks_with_given_vectors(self) -> set[str]:
        """Returns the scored tasks that take their vector from --taskvecs, none of them trained on."""
        settings, config, checkpoint = self.settings, self.config, self.checkpoint
        untrained = self.scored - trained_on(config, self.split)
        if not settings.taskvecs or not untrained or not config.routes_by_task:
            return set()
        flag = f"--taskvecs {settings.taskvecs}"
        if not (config.has_router or config.route_parts):
            raise InputError(
                f"{flag}: the routes of {checkpoint} do not depend on vectors; train with --taskvecs to "
                "route other tasks by theirs"
            )
        with problem_context("--taskvecs "):
            vectors = GivenVectors.load(settings.taskvecs)
        vectors.check(checkpoint, config)
        given = untrained & set(vectors.names)
        stored = dict(zip(*load_task_vectors(checkpoint), strict=True))
        learned, rows = given & set(stored) - set(config.random_vectors), vectors.by_name
        replaced = [task for task in sorted(learned) if (stored[task] != rows[task]).any()]
        if replaced and not settings.prefix:
            raise InputError(
                f"{flag} has other vectors of {in_short(replaced)} than {checkpoint}; give --prefix, so that "
                "its own scores are not overwritten"
            )
        return given

    def check_overwriting(self) -> None:
        """Raises InputError if scores along other routes would overwrite those of the run."""
        settings, saved = self.settings, SavedMixture(self.checkpoint).config
        other = [
            f"--{flag} {getattr(saved, flag)}"
            for flag in ROUTING_FLAGS
            if getattr(settings, flag) not in (None, getattr(saved, flag))
        ]
        redrawn = settings.task_level_random_routing and saved.given_routes
        chosen = settings.by_loss and saved.has_router  # other choices of given routes replace each other
        if settings.route_source not in (None, saved.route_source) or redrawn or chosen:
            given = saved.given_routes
            other.insert(0, f"given routes ({given})" if given else f"{saved.route_source} routes")
        if other:
            raise InputError(
                f"{self.checkpoint} was trained with {' and '.join(other)}; to score it with other routes "
                "give --prefix, so that its own scores are not overwritten"
            )
