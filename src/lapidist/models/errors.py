"""Errors of loading and using a checkpoint. A message is one sentence: what is wrong, where, what to do."""


class CheckpointError(ValueError):
    """The checkpoint directory cannot be used as it stands; the message names the file and the key."""


class ChatTemplateError(ValueError):
    """The conversation cannot be turned into a prompt with the checkpoint's chat template."""
