"""Access tokens at a producer, good ones from the lab's NRF and all others, made by hand with openssl.

    tokens.py LAB_JSON

The producer is the AAnF, the consumer the MSGin5G Server with its own certificate.
"""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import tempfile
import time
import uuid

from peer import Lab, b64url, refused


def es256(key_file, text):
    """The raw signature that JWS wants, from the DER that openssl gives (RFC 7518 clause 3.4)."""
    der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", str(key_file)], input=text, capture_output=True, check=True).stdout
    at, parts = 2, []
    for _ in range(2):
        length = der[at + 1]
        parts.append(der[at + 2:at + 2 + length].lstrip(b"\x00").rjust(32, b"\x00"))
        at += 2 + length
    return b"".join(parts)


def signed(key_file, header, claims):
    text = f"{b64url(json.dumps(header).encode())}.{b64url(json.dumps(claims).encode())}"
    return f"{text}.{b64url(es256(key_file, text.encode()))}"


def parts(token):
    return [json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in token.split(".")[:2]]


class Scene:
    def __init__(self, lab_json, folder):
        self.lab = Lab(lab_json)
        self.consumer = self.lab.peer("server")
        self.url = f"{self.lab.core['aanf']}/naanf-akma/v1/retrieve-applicationkey"
        self.body = {"afId": f"{self.lab.lab['server']['fqdn']}:0100000007", "aKId": "0.nobody@5gc.mnc001.mcc001.3gppnetwork.org"}
        self.key, self.good = self.lab.path("pki/nrf-token.key"), self.consumer.token(
            "AANF", "naanf-akma naanf-akma:applicationkeyget")
        self.header, self.claims = parts(self.good)
        self.other_key = f"{folder}/other.key"
        subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", self.other_key],
                       capture_output=True, check=True)

    def ask(self, token=None, **further):
        return self.consumer.post(self.url, self.body, token=token, **further)

    def refused(self, token, status, cause):
        response = self.ask(token)
        refused(response, status, cause)
        challenge = response.headers["www-authenticate"]
        wanted = {401: 'error="invalid_token"', 403: 'error="insufficient_scope"'}[status]
        assert challenge.startswith("Bearer realm=") and wanted in challenge, challenge

    def forged(self, key=None, header=None, **claims):
        """A token of the NRF's own key, but for what is changed."""
        return signed(key or self.key, {**self.header, **(header or {})},
                      {name: value for name, value in {**self.claims, **claims}.items() if value is not None})


def good_ones_are_taken(scene):
    assert scene.ask(scene.good).status_code == 204
    assert scene.header["alg"] == "ES256" and scene.claims["sub"] == scene.consumer.nf_instance_id, scene.claims
    assert scene.ask(scene.forged()).status_code == 204, "what a token is forged from has to be good"
    own = scene.lab.peer("aanf").nf_instance_id
    assert scene.ask(scene.forged(aud=[own])).status_code == 204


def anothers_token_is_refused(scene):
    ausf = scene.lab.peer("ausf").token("AANF", "naanf-akma naanf-akma:anchorkey")
    scene.refused(ausf, 401, "TOKEN_SUBJECT")
    scene.refused(scene.forged(sub=str(uuid.uuid4())), 401, "TOKEN_SUBJECT")


def another_audience_is_refused(scene):
    for audience in ("UDM", [str(uuid.uuid4())], []):
        scene.refused(scene.forged(aud=audience), 401, "TOKEN_AUDIENCE")


def another_scope_is_refused(scene):
    for scope in ("nudm-ueau", "naanf-akma:applicationkeyget-", "naanf-akma naanf-akma:anchorkey"):
        scene.refused(scene.forged(scope=scope), 403, "TOKEN_SCOPE")


def another_issuer_is_refused(scene):
    scene.refused(scene.forged(iss=str(uuid.uuid4())), 401, "TOKEN_ISSUER")
    scene.refused(scene.forged(key=scene.other_key), 401, "TOKEN_SIGNATURE")


def expired_and_early_ones_are_refused(scene):
    now = int(time.time())
    scene.refused(scene.forged(exp=now - 3600), 401, "TOKEN_EXPIRED")
    scene.refused(scene.forged(exp=0), 401, "TOKEN_EXPIRED")
    scene.refused(scene.forged(nbf=now + 3600), 401, "TOKEN_NOT_YET_VALID")


def other_algorithms_are_refused(scene):
    claims = b64url(json.dumps(scene.claims).encode())
    for algorithm in ("none", "None", "NONE", ""):
        text = f"{b64url(json.dumps({**scene.header, 'alg': algorithm}).encode())}.{claims}"
        for signature in ("", scene.good.rsplit(".", 1)[1]):
            response = scene.ask(f"{text}.{signature}")
            assert response.status_code == 401, (algorithm, response.status_code)
            assert response.json()["cause"] in ("TOKEN_ALGORITHM", "TOKEN_MALFORMED"), response.text
    # The public key as the secret of HMAC, in each form in which an attacker has it.
    pem = subprocess.run(["openssl", "pkey", "-in", scene.key, "-pubout"], capture_output=True, check=True).stdout
    der = subprocess.run(["openssl", "pkey", "-in", scene.key, "-pubout", "-outform", "DER"], capture_output=True, check=True).stdout
    for secret in (pem, pem.strip(), der, der[-65:], scene.lab.path("pki/nrf-jwks.json").read_bytes()):
        text = f"{b64url(json.dumps({**scene.header, 'alg': 'HS256'}).encode())}.{claims}"
        mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
        scene.refused(f"{text}.{b64url(mac)}", 401, "TOKEN_ALGORITHM")


def a_changed_claim_is_refused(scene):
    header, claims, signature = scene.good.split(".")
    for name, value in (("scope", "naanf-akma"), ("exp", scene.claims["exp"] + 86400), ("aud", "AANF AANF")):
        changed = b64url(json.dumps({**scene.claims, name: value}).encode())
        scene.refused(f"{header}.{changed}.{signature}", 401, "TOKEN_SIGNATURE")
    scene.refused(f"{header}.{claims}.{signature[:-4]}AAAA", 401, "TOKEN_SIGNATURE")


def a_token_that_brings_its_own_key_is_refused(scene):
    for header in ({"jwk": {"kty": "EC"}}, {"jku": "https://127.0.0.1:9/"}, {"x5u": "https://127.0.0.1:9/"}, {"x5c": ["MIIB"]}):
        scene.refused(scene.forged(key=scene.other_key, header=header), 401, "TOKEN_BRINGS_KEY")
    scene.refused(scene.forged(header={"crit": ["exp"]}), 401, "TOKEN_EXTENSION")


def what_is_no_token_is_refused(scene):
    for token in ("a", "a.b", "a.b.c", "..", "x" * 8000, scene.good + ".x"):
        response = scene.ask(token)
        assert response.status_code == 401, (token[:20], response.status_code)
    refused(scene.ask(headers={"authorization": "Basic bmY6bmY="}), 401, "SCHEME_UNKNOWN")


def the_nrf_gives_nobody_a_token_for_another(scene):
    nrf, amf = f"{scene.lab.core['nrf']}/oauth2/token", scene.lab.peer("lab-nf")
    form = {"grant_type": "client_credentials", "nfInstanceId": scene.consumer.nf_instance_id, "targetNfType": "AANF",
            "scope": "naanf-akma"}
    response = amf.http.post(nrf, data=form)
    assert response.status_code in (400, 401, 403), response.text
    assert response.json().get("error") in ("invalid_client", "unauthorized_client"), response.text
    for change in ({"grant_type": "password"}, {"scope": ""}, {"nfInstanceId": "nobody"}):
        response = scene.consumer.http.post(nrf, data={**form, **change})
        assert response.status_code == 400 and "error" in response.json(), (change, response.status_code, response.text)


CASES = (good_ones_are_taken, anothers_token_is_refused, another_audience_is_refused, another_scope_is_refused,
         another_issuer_is_refused, expired_and_early_ones_are_refused, other_algorithms_are_refused, a_changed_claim_is_refused,
         a_token_that_brings_its_own_key_is_refused, what_is_no_token_is_refused, the_nrf_gives_nobody_a_token_for_another)


def main(lab_json):
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(lab_json, folder)
        for function in CASES:
            try:
                function(scene)
                print(f"held: {function.__name__}", flush=True)
            except Exception as error:
                failures += 1
                print(f"FAILED: {function.__name__}: {type(error).__name__}: {error}", flush=True)
    if failures:
        sys.exit(f"{failures} cases failed")
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
