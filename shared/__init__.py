"""The diffusion core: knows nothing of pictures, sound, files' formats or the command line."""

from shared import torchaudio_shim

torchaudio_shim.install()
