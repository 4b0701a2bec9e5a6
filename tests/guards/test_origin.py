"""Which web pages may open a connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee.errors import ConfigurationError, Refused
from pongee.guards.origin import OriginPolicy

HOST = "chat.example.com"


def admits(
    policy: OriginPolicy, *origins: str, scheme: str = "wss", host: str | None = HOST
) -> bool:
    try:
        policy.check(origins, scheme=scheme, host=host)
    except Refused:
        return False
    return True


@pytest.mark.parametrize(
    ("origin", "scheme", "host"),
    [
        ("https://chat.example.com", "wss", "chat.example.com"),
        ("HTTPS://Chat.Example.COM", "wss", "chat.example.com"),
        ("https://chat.example.com:443", "wss", "chat.example.com"),
        ("https://chat.example.com", "https", "chat.example.com:443"),
        ("https://chat.example.com.", "wss", "chat.example.com"),
        ("http://localhost:8000", "ws", "localhost:8000"),
        ("http://127.0.0.1:8000", "ws", "127.0.0.1:8000"),
        ("http://[::1]:8000", "ws", "[0:0::1]:8000"),
        ("http://intranet", "http", "intranet:80"),
    ],
)
def test_the_servers_own_page_is_admitted(origin: str, scheme: str, host: str) -> None:
    """Same origin means the same scheme, host and port, however they are spelt."""
    assert admits(OriginPolicy(), origin, scheme=scheme, host=host)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://chat.example.com",
        "https://chat.example.com:8443",
        "https://chat.example.com.evil.example",
        "https://evilchat.example.com",
        "https://chat.example.comevil",
        "https://chat.example.com@evil.example",
        "https://user@chat.example.com",
        "https://user:chat.example.com@evil.example",
        "https://chat.example.com/",
        "https://chat.example.com/path",
        "https://chat.example.com?x",
        "https://chat.example.com#x",
        "https://chat.example.com\n",
        " https://chat.example.com",
        "https://chat.example.com:",
        "https://chat.example.com:99999",
        "https://chat..example.com",
        "https://",
        "chat.example.com",
        "//chat.example.com",
        "wss://chat.example.com",
        "null",
        "NULL",
        "*",
        "https://*.example.com",
        "https://[::zz]",
        "",
    ],
)
def test_a_page_from_anywhere_else_is_refused(origin: str) -> None:
    """Prefixes, suffixes, other schemes, user names, paths and `null` are other origins."""
    assert not admits(OriginPolicy(), origin)
    assert not admits(OriginPolicy(["https://chat.example.com"], same_origin=False), origin)


@pytest.mark.parametrize("host", [None, "", "a b", "user@chat.example.com", "chat.example.com:x"])
def test_an_unusable_host_header_matches_no_origin(host: str | None) -> None:
    """Same origin cannot be claimed where the server's own host is unknown."""
    assert not admits(OriginPolicy(), "https://chat.example.com", host=host)


def test_an_unknown_scheme_matches_no_origin() -> None:
    """Same origin is a matter of http, https, ws and wss only."""
    assert not admits(OriginPolicy(), "https://chat.example.com", scheme="gopher")


def test_a_listed_page_is_admitted_and_its_neighbours_are_not() -> None:
    """An exact pattern is one scheme, host and port."""
    policy = OriginPolicy(["https://App.example.com", "http://localhost:5173"])

    assert admits(policy, "https://app.example.com")
    assert admits(policy, "http://localhost:5173")
    assert admits(policy, "https://chat.example.com")  # the server's own
    assert not admits(policy, "http://localhost:5174")
    assert not admits(policy, "https://api.example.com")


def test_a_refusal_is_a_403_that_says_no_more_than_that() -> None:
    """What is allowed is for the log, not for the stranger."""
    with pytest.raises(Refused) as caught:
        OriginPolicy().check(["https://evil.example"], scheme="wss", host=HOST)

    assert (caught.value.status, caught.value.reason) == (403, "Origin not allowed")


def test_the_servers_own_page_is_refused_when_same_origin_is_off() -> None:
    """Without same_origin only the list counts."""
    assert not admits(OriginPolicy(same_origin=False), "https://chat.example.com")


def test_a_wildcard_admits_sub_domains_but_not_the_apex() -> None:
    """`*.` stands for one or more whole labels, with the pattern's scheme and port."""
    policy = OriginPolicy(["https://*.shop.example:8443"])

    assert admits(policy, "https://a.shop.example:8443")
    assert admits(policy, "https://b.a.shop.example.:8443")
    assert not admits(policy, "https://shop.example:8443")
    assert not admits(policy, "https://evilshop.example:8443")
    assert not admits(policy, "https://a.shop.example")
    assert not admits(policy, "http://a.shop.example:8443")
    assert not admits(policy, "https://a.shop.example.evil:8443")


def test_an_app_scheme_can_be_listed() -> None:
    """Web views have origins with schemes of their own."""
    policy = OriginPolicy(["capacitor://localhost"])

    assert admits(policy, "capacitor://localhost")
    assert not admits(policy, "ionic://localhost")


def test_a_single_pattern_may_be_given_as_a_string() -> None:
    """A string is one pattern, not a sequence of letters."""
    assert admits(OriginPolicy("https://app.example.com"), "https://app.example.com")


def test_a_missing_origin_is_admitted_unless_forbidden() -> None:
    """Clients that are no browser send none; a switch keeps them out."""
    assert admits(OriginPolicy())
    assert not admits(OriginPolicy(allow_missing=False))


def test_two_origin_headers_are_refused_even_if_both_are_allowed() -> None:
    """RFC 6454 section 7.3 allows one; two readers could each pick another."""
    own = "https://chat.example.com"
    assert not admits(OriginPolicy(), own, own)


@pytest.mark.parametrize("policy", [OriginPolicy.any(), OriginPolicy(["*"])])
def test_a_check_that_is_off_admits_everything(policy: OriginPolicy) -> None:
    """`any()` and `*` let in what no pattern could, and say so in `checks`."""
    assert not policy.checks
    assert OriginPolicy().checks
    assert admits(policy, "null")
    assert admits(policy, "a", "b", host=None)
    assert admits(policy)


@pytest.mark.parametrize(
    "pattern",
    [
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://app.*.com",
        "https://*",
        "https://a*.example.com",
        "wss://app.example.com",
        "https://user@app.example.com",
        "https://app.example.com:0x50",
        "https://app.example.com:70000",
        "https://bücher.example",
        "null",
        "",
    ],
)
def test_an_unusable_pattern_stops_the_start(pattern: str) -> None:
    """The message names the pattern and shows what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        OriginPolicy([pattern])

    assert repr(pattern) in str(caught.value)
    assert "https://*.example.com" in str(caught.value)


def test_a_star_beside_other_settings_stops_the_start() -> None:
    """`*` would make the other settings a false promise."""
    with pytest.raises(ConfigurationError, match="alone"):
        OriginPolicy(["*", "https://app.example.com"])
    with pytest.raises(ConfigurationError, match="allow_missing"):
        OriginPolicy(["*"], allow_missing=False)


def test_explain_says_what_came_what_is_allowed_and_the_cure() -> None:
    """The log line is enough to mend the settings."""
    policy = OriginPolicy(["https://app.example.com"])

    text = policy.explain(["https://evil.example"], "wss", HOST)

    assert "'https://evil.example'" in text
    assert "'https://app.example.com'" in text
    assert "https://chat.example.com" in text
    assert "allowed origins" in text


@pytest.mark.parametrize(
    ("origins", "scheme", "cure"),
    [
        (["https://chat.example.com"], "ws", "trusted proxies"),
        (["http://chat.example.com"], "wss", "trusted proxies"),
        ([], "wss", "allow_missing"),
        (["null"], "wss", "sandboxed"),
        (["a", "b"], "wss", "one Origin header"),
    ],
)
def test_explain_names_the_cure_for_each_cause(origins: list[str], scheme: str, cure: str) -> None:
    """Different causes have different cures; a scheme lost in a proxy is the usual one."""
    assert cure in OriginPolicy().explain(origins, scheme, HOST)


def test_explain_keeps_a_hostile_origin_on_one_short_line() -> None:
    """What a stranger sent cannot forge or flood the log."""
    text = OriginPolicy(same_origin=False).explain(["https://a\nroot logged in" * 1000], "ws", None)

    assert "\n" not in text
    assert len(text) < 1000


_SPELLINGS = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"(https?|wss?|[a-z]{1,4})://[a-z0-9.*@\[\]:%/-]{0,30}", fullmatch=True),
)


@given(st.lists(_SPELLINGS, max_size=3), st.one_of(st.none(), _SPELLINGS), _SPELLINGS)
def test_nothing_but_refused_is_ever_raised(
    origins: list[str], host: str | None, scheme: str
) -> None:
    """Whatever the headers hold, the answer is yes or `Refused`, and it can be explained."""
    policy = OriginPolicy(["https://*.example.com", "http://localhost:1"])

    for known in ("ws", "wss", scheme):
        admits(policy, *origins, scheme=known, host=host)
        assert policy.explain(origins, known, host)


@given(st.text(alphabet="abc.:/@*[]?#\\-\n", max_size=20))
def test_only_whole_labels_before_the_dot_pass_a_wildcard(prefix: str) -> None:
    """Whatever stands before `example.com`, it must be labels that end with a dot."""
    policy = OriginPolicy(["https://*.example.com"], same_origin=False)

    if admits(policy, f"https://{prefix}example.com"):
        assert prefix.endswith(".")
        assert set(prefix) <= set("abc.-")
