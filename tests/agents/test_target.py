"""Reading the URL of an agent."""

import pytest

from agents.callerror import CallError
from agents.target import PORTS_REFUSED, Target, read_target


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("http://a.example", Target("http", "a.example", 80, "/"), "a.example"),
        ("https://a.example/x?y=z", Target("https", "a.example", 443, "/x?y=z"), "a.example"),
        ("HTTPS://A.Example:443/", Target("https", "a.example", 443, "/"), "a.example"),
        ("https://a.example:80/", Target("https", "a.example", 80, "/"), "a.example:80"),
        ("http://[2a00::1]:8080/", Target("http", "2a00::1", 8080, "/"), "[2a00::1]:8080"),
        ("http://127.1/", Target("http", "127.1", 80, "/"), "127.1"),
        (
            "https://bücher.example/",
            Target("https", "xn--bcher-kva.example", 443, "/"),
            "xn--bcher-kva.example",
        ),
        ("http://a.example/x#y", Target("http", "a.example", 80, "/x"), "a.example"),
        ("http://a.example/ä ", Target("http", "a.example", 80, "/%C3%A4%20"), "a.example"),
        ("http://a_b.example/", Target("http", "a_b.example", 80, "/"), "a_b.example"),
    ],
)
def test_a_url_says_where_a_call_goes(url: str, target: Target, authority: str) -> None:
    assert read_target(url) == target
    assert target.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example",
        "//a.example/",
        "/path",
        "ftp://a.example/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/",
        "unix:///run/agent.sock",
        "javascript:alert(1)",
        "data:text/plain,x",
        "http:",
        "http://",
        "http:///path",
        "http:/a.example/",
        "http:a.example",
        "http:\\\\a.example\\",
        "http://user@a.example/",
        "http://user:canary-9c2d@a.example/",
        "http://a.example@127.0.0.1/canary-9c2d",
        "http://a.example:b@127.0.0.1/",
        "http://a.example\\@127.0.0.1/",
        "http://127.0.0.1\\.a.example/",
        "http://127.0.0.1%2f.a.example/",
        "http://127.0.0.1%00.a.example/",
        "http://%31%32%37.0.0.1/",
        "http://a.example:0/",
        "http://a.example:65536/",
        "http://a.example:99999999999999999999/",
        "http://a.example:-1/",
        "http://a.example:8o/",
        "http://a.example:80:81/",
        "http://a.example:25/",
        "http://a.example:6379x/",
        "http://[::1/",
        "http://::1/",
        "http://[::1]x/",
        "http://[fe80::1%25eth0]/",
        "http://[v1.a]/",
        "http://[127.0.0.1]/",
        "http://999.1.1.1/",
        "http://0177.0.0.1/",
        "http://a b/",
        "http://a\tb/",
        "http://a.example/\r\nhost: b",
        "http://a\x00.example/",
        "http://①②⑦.0.0.1/",
        "http://xn--\ud800/",
        "http://" + "a" * 254 + "/",
        "http://a.example/" + "x" * 70_000,
    ],
)
def test_what_leads_nowhere_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(CallError) as info:
        read_target(url)

    assert (info.value.code, info.value.retryable) == ("agent_url_invalid", False)
    assert "canary" not in str(info.value)


def test_ports_of_other_protocols_are_refused() -> None:
    for port in PORTS_REFUSED:
        with pytest.raises(CallError):
            read_target(f"http://a.example:{port}/")
    for port in (80, 443, 8080, 8443, 3000, 11434):
        assert read_target(f"http://a.example:{port}/").port == port
