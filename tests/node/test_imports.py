"""A lean import leaves out the certificate authorities and garbage, and then all is as before."""

import subprocess
import sys

PROGRAM = """
import gc, os, ssl, sys
os.environ["SSL_CERT_DIR"] = "/as/it/was"
os.environ.pop("SSL_CERT_FILE", None)
from covey.node.imports import lean
before = dict(os.environ)
try:
    with lean():
        assert not gc.isenabled()
        import aiohttp.connector
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
assert dict(os.environ) == before
assert gc.isenabled()
assert gc.get_freeze_count() > 10_000, "what was imported is not looked through again"
print(len(aiohttp.connector._SSL_CONTEXT_VERIFIED.get_ca_certs()))
"""


def test_a_lean_import_reads_no_authorities_and_puts_everything_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
