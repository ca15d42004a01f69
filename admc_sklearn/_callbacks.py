"""Callbacks of scikit-learn 1.9 and later, told of each training run and epoch."""

from __future__ import annotations

from ._shared.training import Task


class CallbackTask(Task):
    """A step of a fit, of which scikit-learn's callbacks are told.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext
    about : dict
        Arguments of the callbacks: the estimator, X and the metadata of its fit.
    """

    def __init__(self, context, about):
        self.context, self.about = context, about
        context.call_on_fit_task_begin(**about)

    def begin(self, name, n_parts=0):
        """Begin a part of this step, of at most ``n_parts`` parts itself."""
        context = self.context.subcontext(task_name=name, max_subtasks=n_parts)
        return CallbackTask(context, self.about)

    def end(self, fitted=None):
        """End the step, of the ``fitted`` estimator; whether callbacks ask to stop."""
        attributes = None if fitted is None else vars(fitted)
        return self.context.call_on_fit_task_end(
            **self.about, reconstruction_attributes=attributes
        )


def fit_task(estimator, X, groups):
    """Begin the task of a whole fit.

    Without callbacks, as with scikit-learn before 1.9, nothing is told to anybody.
    scikit-learn's own decorator of `fit` tears the callbacks down, by an attribute: a
    copy of the estimator that takes its place has to be made after this.
    """
    if not getattr(estimator, "_skl_callbacks", None):
        return Task()
    metadata = None if groups is None else {"groups": groups}
    # How many networks are trained is not known in advance.
    context = estimator._init_callback_context(max_subtasks=None)
    about = {"estimator": estimator, "X": X, "metadata": metadata}
    return CallbackTask(context, about)
