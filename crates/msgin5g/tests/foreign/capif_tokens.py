"""Access tokens of a CAPIF core function that are wrong in one thing, presented at an API exposing function (TS 33.122 clauses
6.5.2.3 and C.2): signed with the core function's own key, so that nothing else is wrong with them."""

import pathlib
import tempfile
import time
import uuid

from peer import refused
from signed import es256, new_key, tampered

API, OTHER_API = "msgs-msgdelivery", "msgs-topiclistevent"


def refused_tokens(ask, own, key, aef_id, foreign):
    """`ask(token)` calls API at the AEF `aef_id` as the invoker whose token is `own`, and is 403 ORIGINATOR_NOT_ALLOWED once the
    token is taken. `key` is the core function's; `foreign` has tokens that others were rightly given."""
    now = int(time.time())
    made = lambda header=None, signer=key, **claims: tampered(own, header=header, claims=claims, signature=lambda signed: es256(signed, signer))
    for good in (own, made(), made(exp=now + 600), made(header={"kid": None})):
        refused(ask(good), 403, "ORIGINATOR_NOT_ALLOWED")
    with tempfile.TemporaryDirectory() as folder:
        strange = pathlib.Path(folder) / "key"
        new_key(strange)
        invalid = foreign | {
            "expired": made(exp=now - 1), "expired a day ago": made(iat=now - 90_000, exp=now - 86_400), "expired in 1970": made(exp=0),
            "without an end": made(exp=None), "with an end in words": made(exp="tomorrow"),
            "of another core function": made(iss="capif-elsewhere"), "of no core function": made(iss=None),
            "of another invoker": made(client_id=str(uuid.uuid4())), "of no invoker": made(client_id=None),
            "for nothing": made(scope=""), "for something else": made(scope="naanf-akma"),
            "by a stranger's key": made(signer=strange), "by a stranger's key without its name": made(header={"kid": None}, signer=strange),
            "by a key of another name": made(header={"kid": "another"}),
        }
    for what, token in invalid.items():
        challenged(what, ask(token), 401, "INVALID_TOKEN", "invalid_token")
    for what, token in {
        "for another AEF": made(scope=f"3gpp#{uuid.uuid4()}:{API}"), "for another API": made(scope=f"3gpp#{aef_id}:{OTHER_API}"),
        "for both, each in part": made(scope=f"3gpp#{uuid.uuid4()}:{API};{aef_id}:{OTHER_API}"),
    }.items():
        challenged(what, ask(token), 403, "INSUFFICIENT_SCOPE", "insufficient_scope")
    # None of them did its invoker any harm.
    refused(ask(own), 403, "ORIGINATOR_NOT_ALLOWED")


def challenged(what, response, status, cause, error):
    try:
        refused(response, status, cause)
    except AssertionError as problem:
        raise AssertionError(f"a token {what}: wanted {status} {cause}: {problem}") from None
    assert response.headers["www-authenticate"] == f'Bearer realm="capif", error="{error}"', (what, response.headers)
