from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_cam.uri import (
    hide,
    is_ambiguous,
    quoted_url,
    redact,
    redact_uri,
    remember_secrets,
    scheme_of,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:secret@cam:554/stream", "rtsp://***@cam:554/stream"),
        ("rtsp://user@cam/stream", "rtsp://***@cam/stream"),
        ("rtsp://u:p@ss@cam/stream", "rtsp://***@cam/stream"),
        ("rtsp://u:p/a@cam/stream", "rtsp://***@cam/stream"),
        ("RTSP://u:secret@cam/", "RTSP://***@cam/"),
        ("http://cam/v?token=abc&size=3", "http://cam/v?token=***&size=3"),
        ("http://cam/v?api_key=abc", "http://cam/v?api_key=***"),
        ("http://cam/v.mp4", "http://cam/v.mp4"),
        ("clip.mp4", "clip.mp4"),
        ("user@host.mp4", "user@host.mp4"),
        ("cannot open 'rtsp://a:b@c/d': no", "cannot open 'rtsp://***@c/d': no"),
        ("rtsp://a:b@c/d and http://e:f@g/h", "rtsp://***@c/d and http://***@g/h"),
    ],
)
def test_redact_masks_secrets_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


_PASSWORDS = st.text(st.characters(min_codepoint=48, max_codepoint=122), min_size=3).filter(
    lambda text: text.isalnum() and text.lower() not in "rtsp://cam.example/stream***"
)


@given(_PASSWORDS, st.sampled_from(["rtsp://{u}:{p}@cam.example/stream", "http://{u}:{p}@h/a?b=c"]))
def test_redact_never_leaves_a_password(password: str, form: str) -> None:
    assert password not in redact(form.format(u="u", p=f"{password}0xyz"))


@pytest.mark.parametrize(
    "password",
    ["a?b", "a#b", "a/b", "a@b", "a:b", "a&b=c", "p%40q", "a@b/c?d", "a@b?c#d", "@:/?#w"],
)
def test_redact_masks_passwords_with_url_signs_in_them(password: str) -> None:
    shown = redact(f"rtsp://user:{password}@cam/stream")
    assert password not in shown
    assert shown.endswith("@cam/stream")


@pytest.mark.parametrize(
    "password", ["pa'ss9", 'pa"ss9', "pa<ss9", "pa>ss9", "pa ss9", "'", "a b@c"]
)
@pytest.mark.parametrize("rest", ["cam/stream", "cam:554/s?size=3", "cam"])
def test_passwords_may_hold_characters_that_end_a_url_in_a_text(password: str, rest: str) -> None:
    shown = redact_uri(f"rtsp://user:{password}@{rest}")
    assert shown == f"rtsp://***@{rest}"
    assert scheme_of(f"rtsp://user:{password}@{rest}") == "rtsp"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://c/user=admin&password=hunter22&channel=1.sdp", "rtsp://c/user=***&password=***&channel=1.sdp"),
        ("rtsp://c/user=admin_password=hunter22_channel=1_stream=0.sdp", "rtsp://c/user=***_password=***_channel=1_stream=0.sdp"),
        ("rtsp://c/s?usr=admin&pw=hunter22", "rtsp://c/s?usr=***&pw=***"),
        ("http://c/login=me;pwd=hunter22/v", "http://c/login=***;pwd=***/v"),
        ("http://c/power=1/password/v", "http://c/power=1/password/v"),
        ("clip.mp4", "clip.mp4"),
        ("--sink=rtsp://a:hunter22@c/d", "--sink=rtsp://***@c/d"),
    ],
)  # fmt: skip
def test_secrets_in_paths_and_short_names_are_masked(uri: str, shown: str) -> None:
    assert redact_uri(uri) == shown
    remember_secrets(uri)
    assert "hunter22" not in hide("it said hunter22")


@given(st.text())
def test_redact_twice_is_redact_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("rtsp://cam/", "rtsp"),
        ("RTSPS://cam/", "rtsps"),
        ("demo://shapes", "demo"),
        ("0", ""),
        ("a:b.mp4", ""),
        ("dir/http://x", ""),
        ("/dev/video0", ""),
    ],
)
def test_scheme_of(uri: str, scheme: str) -> None:
    assert scheme_of(uri) == scheme


@pytest.mark.parametrize(
    ("given_", "meant"),
    [
        ("rtsp://u:p@:/?#w@cam:554/x?a=b", "rtsp://u:p%40%3A%2F%3F%23w@cam:554/x?a=b"),
        ("rtsp://u:a/b@cam/x", "rtsp://u:a%2Fb@cam/x"),
        ("rtsp://u:p@ss%2Fw?rd@cam/x", "rtsp://u:p%40ss%2Fw%3Frd@cam/x"),
        ("rtsp://u:p%40q@cam/x", "rtsp://u:p%40q@cam/x"),
        ("rtsp://u:100%@cam/x", "rtsp://u:100%25@cam/x"),
        ("rtsp://u@cam/x", "rtsp://u@cam/x"),
        ("rtsp://cam/x@1", "rtsp://cam/x@1"),
        ("rtsp://[::1]:554/x@1", "rtsp://[::1]:554/x@1"),
        ("http://h/a?user=a@b.c", "http://h/a?user=a@b.c"),
        ("clip.mp4", "clip.mp4"),
    ],
)
def test_quoted_url_encodes_characters_that_libraries_misread(given_: str, meant: str) -> None:
    assert quoted_url(given_) == meant
    assert quoted_url(meant) == meant


def test_hide_knows_secrets_outside_of_urls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_cam.uri._secrets", set())
    remember_secrets("rtsp://me:pa/ss@cam/x?token=tok3n", "clip.mp4", "rtsp://me:abc@cam/")
    text = "Basic bWU6cGEvc3M= pa/ss pa%2Fss tok3n abc rtsp://x:y@z/"
    assert hide(text) == "Basic *** *** *** *** abc rtsp://***@z/"


@pytest.mark.parametrize(
    "password", ["p@ss/w", "p@ss?w", "p@ss#w", "12/34", "12?34", "12#34", "/x"]
)
@pytest.mark.parametrize("rest", ["cam/x", "cam:554/x?a=b", "cam", "192.168.1.7/x", "[::1]/x"])
def test_password_whose_piece_looks_like_a_host_is_ambiguous(
    password: str, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"rtsp://me:{password}@{rest}"
    assert is_ambiguous(uri)
    assert not is_ambiguous(f"rtsp://me:{quote(password, safe='')}@{rest}")
    assert redact_uri(uri) == f"rtsp://***@{rest}"
    monkeypatch.setattr("stream_cam.uri._secrets", set())
    remember_secrets(uri)
    if len(password) >= 4:
        assert password not in hide(f"it said {password} and {uri}")


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://cam/x@1",
        "rtsp://[::1]:554/x@1",
        "rtsp://192.168.1.7:554/user@home/1",
        "rtsp://cam:554/x",
        "http://cam:8080/snap.jpg?user=a@b.c",
        "http://me:secret@cam:8080/snap.jpg?user=a@b.c",
        "http://h/a?user=a@b.c",
        "rtsp://me@home:secret@cam/x",
        "rtsp://me@cam/x@1",
        "rtsp://me:a?b#c/d@cam/x",
        "clip@1.mp4",
    ],
)
def test_addresses_with_one_sensible_reading_are_not_ambiguous(uri: str) -> None:
    assert not is_ambiguous(uri)
