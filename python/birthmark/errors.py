"""Every error that birthmark raises on purpose: one tree under :class:`BirthmarkError`.

Messages are one clear line and never contain secrets. The command line maps every member of the
tree to exit code 2; anything else that escapes is a defect of this package.
"""

from __future__ import annotations


class BirthmarkError(Exception):
    """Base of the tree: catch this to catch whatever birthmark refuses."""


class InvalidPicture(BirthmarkError):
    """A picture file is missing, corrupt, truncated, empty, too large or of no known format."""


class InvalidArray(BirthmarkError):
    """An array has the wrong dtype, shape, strides or range, holds NaN or Inf, or is read-only."""


class CudaUnavailable(BirthmarkError):
    """CUDA was asked for, but this build has none, or the machine has no usable driver or card."""


class CudaFailed(BirthmarkError):
    """The CUDA driver refused a call, or a kernel failed on the card."""


class InvalidFormat(BirthmarkError):
    """A picture format is unknown, or its parts do not go together."""


class InvalidModel(BirthmarkError):
    """A model file is not ONNX, is not image-to-image, does not fit the picture, or yields NaN."""


class CannotGraft(BirthmarkError):
    """A model cannot take the mark into its graph: an old opset, no picture to mark, or marked."""


class MissingLibrary(BirthmarkError):
    """A library that is asked for is not in this build of the package, or is not installed."""


class EngineFailed(BirthmarkError):
    """The workers of an engine are gone, cannot be reached, or run another version of birthmark."""


class InvalidMarkFile(BirthmarkError):
    """A mark file is truncated, foreign, of an unknown version, or fails its checksum."""


class InvalidClaim(BirthmarkError):
    """A claim is malformed, too large, of an unknown version, or its signature does not hold."""


class InvalidKeyFile(BirthmarkError):
    """An owner's key file is truncated, foreign, of an unknown version, or of absurd cost."""


class InvalidShares(BirthmarkError):
    """Shares of a key are damaged, too few, of different keys, or cannot be made as asked."""


class InvalidKeyHistory(BirthmarkError):
    """A key history is malformed, its chain or a signature does not hold, or it forbids the use."""


class InvalidCustomer(BirthmarkError):
    """A customer's name, or a list of customers, is malformed or names somebody twice."""


class InvalidStamp(BirthmarkError):
    """A time stamp is malformed, is not over the claim, or its signature is not trusted."""


class StampUnavailable(BirthmarkError):
    """A time-stamping authority could not be reached, or refused to stamp."""


class InvalidTrial(BirthmarkError):
    """A trial's declaration is malformed, or was changed, or what is asked is not what it says."""


class RegistryError(BirthmarkError):
    """A registry cannot be opened or used, or does not hold what is asked of it."""


class WrongPassphrase(BirthmarkError):
    """A key file does not open: the passphrase is wrong (or empty), or its ciphertext was changed.

    Authenticated encryption cannot tell the two apart.
    """


class InvalidVerdict(BirthmarkError):
    """A verdict file is truncated, foreign, or its numbers do not reproduce."""


class OutputExists(BirthmarkError):
    """An output file or non-empty output folder exists and overwriting was not asked for."""


class InvalidCheckpoint(BirthmarkError):
    """A verdict's checkpoint is no such file, is in use, or is for another claim or suspect."""


class InvalidTraining(BirthmarkError):
    """Training cannot start or go on: unusable pairs, a foreign checkpoint, or a loss of NaN."""


class MissingGradient(BirthmarkError):
    """The reverse-mode walk met an ONNX operator for which the rule table has no gradient."""


class CouldNotJudge(BirthmarkError):
    """No verdict can be given: too little usable evidence, or the exact tests disagree."""
