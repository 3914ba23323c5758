"""Rows that need the engine on the GPU, or a GPU."""
from matrix import absent

ENGINE = 'needs the engine on the GPU'
for number, fault in (
        ('6', "abort() with ROCm's text of a GPU fault"), ('7', 'every HIP call fails from one on'),
        ('8', 'a launch fails; ECC error'), ('9', 'no VRAM at load'), ('10', 'no VRAM in a request'),
        ('11', 'the GPU never finishes')):
    absent(number, fault, ENGINE)
