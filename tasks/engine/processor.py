"""The processor of this machine → the types that it is quick at."""


def is_quick_at_bfloat16() -> bool:
    """Returns whether the CPU has instructions for wide vectors of bfloat16 (AVX-512).

    Others take every number out of bfloat16 and back, which costs more than it saves.
    """
    from torch.backends import cpu

    return "AVX512" in cpu.get_cpu_capability()
