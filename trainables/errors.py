"""The errors that a user can cause, and those that a training or a trial can."""


class InputError(ValueError):
    """What the user wrote cannot be used; the message says what, where and how to mend it."""


class TrainingDivergedError(RuntimeError):
    """A training's loss stopped being finite; the message names the epoch."""


class TrialFailedError(RuntimeError):
    """A trial has failed, by its record; the message is its error."""


class DeviceError(RuntimeError):
    """A trial was given a GPU that torch cannot use; the message is one line."""


class PredictorError(RuntimeError):
    """A deployed model returns an invalid answer: NaN, a wrong shape, an unknown class."""


class StorageError(OSError):
    """Storage cannot be used now: full, refused, or not answering; the message is one line.

    It is not the trial's fault: no record is made of it, and the trial is rerun elsewhere or later.
    """
