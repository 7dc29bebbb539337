"""The configuration: order of the sources, every reader, and errors that help."""

import dataclasses
from pathlib import Path

import pytest

from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.rate import Rate
from covey.node.settings import KEYS, Endpoint, Settings, load_settings


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.find(tmp_path, {})


def test_flag_before_environment_before_file_before_default(home: Home) -> None:
    home.config_file.write_text('name = "file"\nswarm = "file"\ncodec = "f32"\n')
    environ = {"COVEY_NAME": "env", "COVEY_SWARM": "env", "PATH": "/bin"}
    settings = load_settings(home, {"name": "flag", "swarm": None, "peers": ()}, environ)
    assert (settings.name, settings.swarm, settings.codec) == ("flag", "env", "f32")
    assert settings.mdns is True


def test_the_default_name_is_the_machines(home: Home) -> None:
    assert load_settings(home, {}, {}).name not in ("", "node.local")
    defaults = dataclasses.replace(load_settings(home, {}, {}), name="node")
    assert defaults == Settings()


def test_every_key_can_be_given_in_the_file(home: Home) -> None:
    home.config_file.write_text(
        """
        name = "studio"
        swarm = "lab"
        peers = ["10.0.0.2:17700", "studio-2.local", "[fe80::1]:9"]
        listen = ":17800"
        api = "[::1]:17801"
        api_hosts = ["studio.lan"]
        api_cert = "/c.pem"
        api_key = "/k.pem"
        mdns = false
        up = "10 Mbit/s"
        down = "2MB/s"
        algorithm = "robust-pull"
        codec = "f32"
        exchanges = 2
        pulls = 5
        hostile_share = 0.1
        outer_momentum = 0.4
        outer_rate = 1
        checkpoint_every_s = 30
        checkpoint_keep = 5
        log_level = "debug"
        """
    )
    settings = load_settings(home, {}, {})
    default = Settings()
    for key in KEYS:
        assert getattr(settings, key) != getattr(default, key), key
    assert settings.peers == ("10.0.0.2:17700", "studio-2.local:17700", "[fe80::1]:9")
    assert settings.listen == Endpoint("0.0.0.0", 17800)
    assert settings.api == Endpoint("::1", 17801)
    assert settings.outer_rate == 1.0
    assert (settings.up, settings.down) == (Rate(1.25e6), Rate(2e6))


def test_the_environment_gives_lists_and_switches(home: Home) -> None:
    environ = {"COVEY_PEERS": "a:1, b:2,,a:1", "COVEY_MDNS": "off", "COVEY_EXCHANGES": "3"}
    settings = load_settings(home, {}, environ)
    assert (settings.peers, settings.mdns, settings.exchanges) == (("a:1", "b:2"), False, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("peer = []", "unknown key 'peer', did you mean 'peers'?"),
        ("chekpoint_keep = 1", "did you mean 'checkpoint_keep'?"),
        ("zzzz = 1", "the keys are name, swarm"),
        ("name = 3", "is not text"),
        ("name = ''", "1 to 64 printable"),
        ("peers = [1]", "is not text"),
        ("peers = ['a:70000']", "is not host:port"),
        ("peers = ['a:0']", "no port"),
        ("peers = ['http://a']", "is not host:port"),
        ("listen = '[::zz]:1'", "listen = "),
        ("mdns = 'perhaps'", "neither true nor false"),
        ("up = 1250000", "is not text"),
        ("up = '10'", "'10': is not a rate; write 10mbit, 1.25MB/s, or off"),
        ("down = '5kbit'", "is below 1mbit, too slow to learn with; lift it with off"),
        ("exchanges = 0", "between 1 and 16"),
        ("exchanges = 1.5", "whole number"),
        ("outer_rate = true", "is not a number"),
        ("outer_rate = nan", "between"),
        ("algorithm = 'pairs'", "is not one of pair, push-sum, relay, robust-pull"),
        ("codec = 'mod5'", "is not one of mod4, f32"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(home: Home, text: str, expected: str) -> None:
    home.config_file.write_text(text)
    with pytest.raises(OperatorError, match=expected) as caught:
        load_settings(home, {}, {})
    assert str(home.config_file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_refused(home: Home) -> None:
    home.config_file.write_bytes(b"\xff\xfe")
    with pytest.raises(OperatorError, match="UTF-8"):
        load_settings(home, {}, {})


def test_a_misspelt_variable_is_refused_but_foreign_ones_are_not(home: Home) -> None:
    with pytest.raises(OperatorError, match="did you mean COVEY_PEERS"):
        load_settings(home, {}, {"COVEY_PEER": "a:1"})
    foreign = {"COVEY_HOME": "x", "COVEY_SUPERVISED": "1", "COVEY_PORT": "tcp://10.0.0.1:80"}
    load_settings(home, {}, foreign)


def test_bad_variables_and_flags_are_named(home: Home) -> None:
    with pytest.raises(OperatorError, match="COVEY_MDNS = 'x': is neither"):
        load_settings(home, {}, {"COVEY_MDNS": "x"})
    with pytest.raises(OperatorError, match=r"--listen = 'a:b': .*--help"):
        load_settings(home, {"listen": "a:b"}, {})


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("127.0.0.1:1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False), ("a", False)],
)
def test_loopback_is_told_from_the_rest(text: str, loopback: bool) -> None:
    assert Endpoint.parse(text).loopback is loopback


@pytest.mark.parametrize("text", ["10.0.0.1:5", "a", "[fe80::1]:7", "[::]"])
def test_an_endpoint_reads_what_it_writes(text: str) -> None:
    assert str(Endpoint.parse(text)) == text
