"""Where peers may be reached: every known address, where it was learned, and when to dial it."""


def parse_address(text: str) -> tuple[str, int]:
    """``host:port`` or ``[IPv6]:port`` as host and port.  Raises ValueError."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address goes in brackets, as [::1]:4001")
    if not colon or not host or not (port.isascii() and port.isdigit()):
        raise ValueError(f"{text!r} is not HOST:PORT")
    if not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: a port is between 1 and 65535")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """The inverse of ``parse_address``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
