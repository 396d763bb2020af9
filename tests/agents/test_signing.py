"""Signatures, against the public library and against numbers that are not ours."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from agents.signing import SECRET_BYTES, SigningError, make_secret, read_secret, sign, verify

# The example of the specification's reference library.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
AT = datetime.fromtimestamp(1614265330, UTC)
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

OTHER = make_secret(bytes(range(SECRET_BYTES)))


def test_the_example_of_the_specification_is_signed_as_it_says() -> None:
    assert sign([SECRET], ID, AT, BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


def test_a_signature_is_the_hash_that_the_specification_describes() -> None:
    key = base64.b64decode(OTHER.removeprefix("whsec_"))
    digest = hmac.new(key, b"a.1614265330.\x00\xff", hashlib.sha256).digest()

    signed = sign([OTHER], "a", AT, b"\x00\xff")

    assert signed["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


@pytest.mark.parametrize("body", [BODY, b"", '{"text":"π"}'.encode(), b"a.b.c"])
def test_the_public_library_accepts_what_we_sign(body: bytes) -> None:
    secret = make_secret(b"\x07" * 24)
    headers = sign([secret], "01JXYZ", datetime.now(UTC), body)

    Webhook(secret).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, headers, json_parse=False)


def test_while_a_secret_is_replaced_either_is_accepted() -> None:
    headers = sign([OTHER, SECRET], ID, datetime.now(UTC), BODY)

    assert headers["webhook-signature"].count(" ") == 1
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(BODY, headers)
        verify([secret], headers, BODY, now=datetime.now(UTC))


def test_what_the_public_library_signs_is_accepted() -> None:
    signature = Webhook(SECRET).sign(ID, AT.replace(tzinfo=None), BODY.decode())
    headers = {"webhook-id": ID, "webhook-timestamp": "1614265330", "webhook-signature": signature}

    verify([OTHER, SECRET], headers, BODY, now=AT)


def test_signatures_of_other_versions_are_passed_over() -> None:
    headers = sign([SECRET], ID, AT, BODY)
    headers["webhook-signature"] = f"v1a,AAAA v2,xyz v1 {SIGNATURE}"

    verify([SECRET], headers, BODY, now=AT)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"webhook-id": "other"}, "webhook_signature_invalid"),
        ({"webhook-timestamp": "1614265331"}, "webhook_signature_invalid"),
        ({"webhook-signature": SIGNATURE[:-4] + "AAA="}, "webhook_signature_invalid"),
        ({"webhook-signature": "v1,é"}, "webhook_signature_invalid"),
        ({"webhook-signature": SIGNATURE.replace("v1", "v2")}, "webhook_signature_invalid"),
        ({"webhook-signature": ""}, "webhook_unsigned"),
        ({"webhook-id": ""}, "webhook_unsigned"),
        ({"webhook-id": "a.b"}, "webhook_unsigned"),
        ({"webhook-timestamp": "soon"}, "webhook_unsigned"),
        ({"webhook-timestamp": "-1"}, "webhook_unsigned"),
        ({"webhook-timestamp": "9" * 400}, "webhook_unsigned"),
    ],
)
def test_what_was_changed_is_refused(change: dict[str, str], code: str) -> None:
    headers = sign([SECRET], ID, AT, BODY) | change

    with pytest.raises(SigningError) as info:
        verify([SECRET], headers, BODY, now=AT)

    assert info.value.code == code


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(301, "webhook_too_old"), (-301, "webhook_too_new"), (299, None), (-299, None)],
)
def test_a_signature_holds_for_five_minutes(seconds: int, code: str | None) -> None:
    headers = sign([SECRET], ID, AT, BODY)
    now = AT + timedelta(seconds=seconds)
    if code is None:
        verify([SECRET], headers, BODY, now=now)
        return

    with pytest.raises(SigningError) as info:
        verify([SECRET], headers, BODY, now=now)

    assert info.value.code == code


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_holds_24_to_64_bytes(size: int) -> None:
    assert read_secret(make_secret(bytes(size))) == bytes(size)


def test_a_secret_may_lack_its_padding() -> None:
    assert read_secret(make_secret(bytes(25)).rstrip("=")) == bytes(25)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_not base64, canary-31aa, not base64",
        "whsec_" + "é" * 32,
        "whsec_A",
    ],
)
def test_what_is_no_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(SigningError) as info:
        read_secret(secret)

    assert info.value.code == "webhook_secret_invalid"
    assert "canary" not in str(info.value)
