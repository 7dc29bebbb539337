"""The one part of the build that pyproject.toml cannot say: a C extension that may be missing.

Where it cannot be built (no compiler, no Python headers), covey is installed all the same and
computes with numpy.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "covey.gossip._kernels",
            ["gossip/_kernels.c"],
            # Fused multiplications round differently; numpy has none.  Nobody sets traps, which
            # floorf in vectors might miss.
            extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fno-trapping-math"],
            optional=True,
        )
    ]
)
