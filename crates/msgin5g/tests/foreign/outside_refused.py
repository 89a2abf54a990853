"""Who is refused at the NEF and as an API invoker, from outside, with what alert, status and cause.

    outside_refused.py LAB_JSON NEF [CASE...]

NEF is the root of a second one, whose tokens live for 10 s.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from capif_tokens import refused_tokens
from cases import Cases
from external import MESSAGE, REGISTRATIONS, REPORT, External, message_to
from invoker import Invoker, PskConnection, Refused, credentials, interface_for, openssl, root_of
from outside import certificate
from peer import Lab, Peer, b64url, refused
from signed import decoded, es256, own_key, tampered
from ue import TLS_1_3, Network, Ue, subscribers

case = Cases()
RETRIEVE = "/3gpp-akma/v1/retrieve"
PATIENCE_SECONDS = 60
# A P-256 public key in DER up to its point (RFC 5480).
P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
# Alerts of RFC 8446 clause 6 and RFC 4279.
BAD_RECORD_MAC, UNKNOWN_PSK_IDENTITY = 20, 115


class Scene:
    def __init__(self, lab_json, short_lived, folder):
        self.lab, self.folder = Lab(lab_json), pathlib.Path(folder)
        self.ue = Ue(Network(lab_json), subscribers(Network(lab_json), 1)[0]).authenticate()
        self.weather, self.relay = External(self.lab, 0), External(self.lab, 1)
        self.nef, self.capif = self.lab.core["nef"], self.lab.core["capif"]
        self.unused = {one: credentials(self.lab, one.service_id) for one in (self.weather, self.relay)}
        self.short_lived, self.profile = External(self.lab, 0), None
        self.short_lived.root = short_lived

    def invoker(self, external=None):
        """A new invoker for this application server, which knows where the NEF is."""
        unused = self.unused[external or self.weather]
        one = Invoker(self.lab, self.folder, f"invoker-{len(unused)}-{id(unused)}", unused.pop())
        answer = one.onboard()
        assert answer.status_code == 201, (answer.status_code, answer.text)
        self.profile = self.profile or one.discover(**{"api-name": "msgs-msgdelivery"})[0]["aefProfiles"][0]
        return one

    def key_request(self, external):
        return {"afId": f"{external.description['fqdn']}:{TLS_1_3.hex()}", "aKId": self.ue.a_kid}


def challenged(response, error=None):
    """The challenge of RFC 6750 clause 3."""
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith("Bearer "), challenge
    assert (f'error="{error}"' in challenge) if error else ("error=" not in challenge), challenge


def alert(scene, root, peer=None):
    """What the server ends a handshake with in which this peer shows its certificate."""
    host, _, port = root.removeprefix("https://").partition(":")
    context = scene.lab.context(*(peer.cert, peer.key) if peer else ())
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((host, int(port)), timeout=30) as raw:
            with context.wrap_socket(raw, server_hostname=host) as stream:
                return "open" if stream.recv(9) else "closed"
    except ssl.SSLError as error:
        return error.reason


def psk_refused(scene, identity, key, alert_number):
    """TLS with this identity and key fails with the stated alert."""
    try:
        PskConnection(interface_for(scene.profile, "PSK"), identity, key).request("POST", MESSAGE, {})
    except Refused as refusal:
        assert f"alert number {alert_number}" in str(refusal), refusal
        return
    raise AssertionError("the connection was taken")


# --- at the NEF ----------------------------------------------------------------------------------------------


@case
def without_a_certificate_or_with_a_network_functions_the_nef_ends_the_handshake(scene):
    assert alert(scene, scene.nef) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert alert(scene, scene.nef, scene.lab.peer("lab-nf")) == "TLSV1_ALERT_UNKNOWN_CA"


@case
def no_function_inside_takes_a_certificate_from_outside(scene):
    inside = {name: scene.lab.core[name] for name in ("aanf", "udm", "ausf", "configuration", "nrf")} | {"server": scene.lab.api}
    for name, root in inside.items():
        assert alert(scene, root, scene.weather) == "TLSV1_ALERT_UNKNOWN_CA", name


@case
def the_supi_is_told_to_nobody_outside(scene):
    for external, gpsi in ((scene.weather, False), (scene.relay, True)):
        answer = external.ask("POST", RETRIEVE, scene.key_request(external))
        assert answer.status_code == 200, (answer.status_code, answer.text)
        data = answer.json()
        assert data["kaf"].lower() == scene.ue.k_af(TLS_1_3, external.description["fqdn"]).hex(), "not the UE's K_AF"
        assert "supi" not in data and ("gpsi" in data) == gpsi, sorted(data)
        assert scene.ue.subscriber["supi"].removeprefix("imsi-") not in answer.text
        # There is no scope that would make it so.
        for scope in ("naanf-akma:applicationkeyget:supi-access", "3gpp-akma naanf-akma:applicationkeyget:supi-access", "naanf-akma"):
            answer = external.ask_token(scope)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope"), (scope, answer.text)
    answer = scene.weather.ask_token("nnef-akma:gpsi-access")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope"), answer.text
    only_the_key = scene.relay.granted("3gpp-akma")
    answer = scene.relay.post(f"{scene.nef}{RETRIEVE}", scene.key_request(scene.relay), token=only_the_key)
    assert answer.status_code == 200 and "gpsi" not in answer.json(), answer.text


@case
def an_af_that_asks_for_anothers_af_id_is_af_id_not_allowed(scene):
    for external, other in ((scene.weather, scene.relay), (scene.relay, scene.weather)):
        refused(external.ask("POST", RETRIEVE, scene.key_request(other)), 403, "AF_ID_NOT_ALLOWED")
    server = scene.key_request(scene.weather) | {"afId": f"{scene.lab.lab['server']['fqdn']}:{TLS_1_3.hex()}"}
    refused(scene.weather.ask("POST", RETRIEVE, server), 403, "AF_ID_NOT_ALLOWED")


def in_the_name_of(address, ue):
    return ((REGISTRATIONS, {"asSvcId": address["addr"], "targetUri": "https://127.0.0.1:9/in"}),
            (MESSAGE, message_to(ue, address, b"forged")),
            (REPORT, {"oriAddr": address, "destAddr": ue.address(), "msgId": "1", "delivSt": "REPT_DELY_SUCCESS"}),
            ("/msgs-topiclistevent/v1/request-topic-subscription", {"oriAddr": address, "msgTopics": ["lab/x"]}))


@case
def an_application_server_in_the_name_of_another_is_originator_not_allowed(scene):
    billing = {"addrType": "AS", "addr": scene.lab.lab["application_servers"][0]["as_service_id"]}
    for address in (scene.relay.address(), billing):
        for path, body in in_the_name_of(address, scene.ue):
            refused(scene.weather.ask("POST", path, body), 403, "ORIGINATOR_NOT_ALLOWED")
    # As an API invoker it is the same application server.
    invoker = scene.invoker()
    ask = invoker.by_oauth(scene.profile)
    for path, body in in_the_name_of(scene.relay.address(), scene.ue):
        refused(ask("POST", path, body), 403, "ORIGINATOR_NOT_ALLOWED")


@case
def an_application_server_that_did_not_register_or_names_anothers_door_is_told_so(scene):
    refused(scene.relay.ask("POST", MESSAGE, message_to(scene.ue, scene.relay.address(), b"early")), 403, "NOT_REGISTERED")
    for target in ("https://elsewhere.example/in", "https://10.0.0.1/in"):
        refused(scene.relay.ask("POST", REGISTRATIONS, {"asSvcId": scene.relay.service_id, "targetUri": target}), 403,
                "TARGET_URI_NOT_ALLOWED")


@case
def a_token_that_is_missing_changed_or_made_up_is_401_with_the_challenge_of_rfc_6750(scene):
    ask = lambda token: scene.weather.post(f"{scene.nef}{RETRIEVE}", scene.key_request(scene.weather), token=token)
    response = ask(None)
    refused(response, 401, "TOKEN_MISSING")
    challenged(response)
    good = scene.weather.granted("msgs-msgdelivery")
    # The signer's public key is not told to anybody; the certificate's is known, and taken for an HMAC's secret.
    public = openssl("x509", "-in", scene.weather.cert, "-noout", "-pubkey").encode()
    hs256 = lambda signed: b64url(hmac.new(public, signed.encode(), hashlib.sha256).digest())
    for what, token in {
        "no token at all": "abc",
        "a changed claim": tampered(good, claims={"scope": "3gpp-akma"}),
        "a later expiry": tampered(good, claims={"exp": int(time.time()) + 86400}),
        "another subject": tampered(good, claims={"sub": scene.relay.description["af_id"]}),
        "alg none": tampered(good, header={"alg": "none"}, signature=lambda signed: ""),
        "an HMAC": tampered(good, header={"alg": "HS256"}, signature=hs256),
        "a key that it brings": tampered(good, header={"jwk": {"kty": "EC"}}),
        "a cut signature": good[:-4],
    }.items():
        response = ask(token)
        assert response.status_code == 401, (what, response.status_code, response.text)
        refused(response, 401, "INVALID_TOKEN")
        challenged(response, "invalid_token")
    response = ask(good)
    refused(response, 403, "INSUFFICIENT_SCOPE")
    challenged(response, "insufficient_scope")


@case
def a_token_of_another_issuer_or_for_another_audience_is_invalid_token(scene):
    weather, key = scene.short_lived, scene.lab.path("second-nef-token.key")
    ask = lambda token: weather.post(f"{weather.root}{RETRIEVE}", scene.key_request(weather), token=token)
    good = weather.granted("3gpp-akma")
    made = lambda **claims: tampered(good, claims={"exp": int(time.time()) + 600} | claims, signature=lambda signed: es256(signed, key))
    response = ask(made())
    assert response.status_code == 200, (response.status_code, response.text)
    own = json.loads(decoded(good.split(".")[1]))["iss"]
    for what, token in {
        "another issuer": made(iss="https://nef.elsewhere.example"), "no issuer": made(iss=None), "issuer of several": made(iss=[own]),
        "another audience": made(aud="https://nef.elsewhere.example"), "no audience": made(aud=None),
        "the MSGin5G Server": made(aud="AF"), "several audiences": made(aud=[own, "AANF"]),
        # Of issuers that are real and none of the NEF's: the NRF, to a function inside; the other NEF, to this very AS.
        "the NRF's": scene.lab.peer("nef").token("AANF", "naanf-akma naanf-akma:applicationkeyget"),
        "another NEF's": scene.weather.granted("3gpp-akma"),
    }.items():
        response = ask(token)
        assert response.status_code == 401, (what, response.status_code, response.text)
        refused(response, 401, "INVALID_TOKEN")
        challenged(response, "invalid_token")


@case
def a_token_on_the_connection_of_another_is_invalid_token(scene):
    token = scene.relay.granted()
    response = scene.weather.post(f"{scene.nef}{RETRIEVE}", scene.key_request(scene.relay), token=token)
    refused(response, 401, "INVALID_TOKEN")
    challenged(response, "invalid_token")
    answer = scene.weather.ask_token(client_id=scene.relay.description["client_id"])
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), answer.text


@case
def a_token_that_expired_is_invalid_token(scene):
    weather = scene.short_lived
    token = weather.granted("3gpp-akma")
    expires_at = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["exp"]
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        response = weather.post(f"{weather.root}{RETRIEVE}", scene.key_request(weather), token=token)
        if response.status_code != 200:
            break
        assert time.monotonic() < give_up_at, "the token does not expire"
        time.sleep(0.2)
    assert time.time() >= expires_at, "refused before its time"
    refused(response, 401, "INVALID_TOKEN")
    challenged(response, "invalid_token")


# --- at the CAPIF core function ------------------------------------------------------------------------------


@case
def an_onboarding_credential_is_good_once_and_a_made_up_one_never(scene):
    invoker = scene.invoker()
    again = Invoker(scene.lab, scene.folder, "again", invoker.credential).onboard()
    refused(again, 401, "ONBOARDING_CREDENTIAL_SPENT")
    for credential, cause in ((None, "NO_ONBOARDING_CREDENTIAL"), ("0" * 64, "ONBOARDING_CREDENTIAL_UNKNOWN")):
        refused(Invoker(scene.lab, scene.folder, "stranger", credential).onboard(), 401, cause)


@case
def nobody_without_an_invokers_certificate_is_served_at_the_core_function(scene):
    uri = f"{scene.capif}/service-apis/v1/allServiceAPIs?api-invoker-id=any"
    refused(Peer(scene.lab, None, None).get(uri), 401, "NO_CERTIFICATE")
    # Neither the application server's own certificate nor a network function's is one of the CAPIF authority.
    for stranger in (scene.weather, scene.lab.peer("lab-nf")):
        assert alert(scene, scene.capif, stranger) == "TLSV1_ALERT_UNKNOWN_CA"


@case
def an_invoker_that_acts_for_another_is_not_yours(scene):
    weather, relay = scene.invoker(), scene.invoker(scene.relay)
    trusted = f"{scene.capif}/capif-security/v1/trustedInvokers/{relay.id}"
    context = {"securityInfo": [{"aefId": scene.profile["aefId"], "prefSecurityMethods": ["PKI"]}],
               "notificationDestination": weather.notified_at}
    for method, uri, body in (
            ("PUT", trusted, context), ("GET", trusted, None), ("DELETE", trusted, None),
            ("DELETE", f"{scene.capif}/api-invoker-management/v1/onboardedInvokers/{relay.id}", None),
            ("GET", f"{scene.capif}/service-apis/v1/allServiceAPIs?api-invoker-id={relay.id}", None)):
        refused(weather.peer.request(method, uri, body), 403, "NOT_YOURS")
    answer = weather.peer.http.post(f"{scene.capif}/capif-security/v1/securities/{relay.id}/token",
                                    data={"grant_type": "client_credentials", "client_id": relay.id})
    refused(answer, 403, "NOT_YOURS")


@case
def psk_is_not_agreed_upon_over_tls_1_3_and_no_token_without_oauth(scene):
    invoker = scene.invoker()
    refused(invoker.negotiate(scene.profile["aefId"], ["PSK"]), 403, "NO_SECURITY_METHOD_IN_COMMON")
    for _ in range(2):
        answer = invoker.token()
        assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client"), answer.text
        invoker.by_pki(scene.profile)


@case
def a_capif_identity_on_the_word_of_another_authority_is_nobodys(scene):
    invoker = scene.invoker()
    ask = invoker.by_pki(scene.profile)
    body = message_to(scene.ue, scene.weather.address(), b"x")
    refused(ask("POST", MESSAGE, body), 403, "NOT_REGISTERED")
    root = root_of(interface_for(scene.profile, "PKI"))
    names = names_in(invoker.cert)
    assert f"URI:capif:api-invoker:{invoker.id}" in names, names
    outside = tuple(scene.lab.path(f"pki/af-ca.{end}") for end in ("pem", "key"))
    forged = lambda name, names: Peer(scene.lab, *certificate(scene.folder, name, outside, subject_alternative=",".join(names)))
    # Every name of the invoker's certificate, its serial number, too: of the authority of application functions.
    impostor = forged("impostor", names)
    for path, content in ((MESSAGE, body), ("/oauth2/token", {}), ("/aef-security/v1/check-authentication", {"apiInvokerId": invoker.id, "supportedFeatures": "0"})):
        refused(impostor.post(f"{root}{path}", content), 403, "NOT_OF_THE_CAPIF_AUTHORITY")
    # Nor are rules for application functions of any use to whoever claims to be of CAPIF.
    both = forged("both", [f"DNS:{scene.weather.description['fqdn']}", "URI:capif:api-invoker:any"])
    answer = both.http.post(f"{scene.nef}/oauth2/token", data={"grant_type": "client_credentials", "client_id": scene.weather.description["client_id"]})
    refused(answer, 403, "NOT_OF_THE_CAPIF_AUTHORITY")
    core = forged("core", names_in(scene.lab.path("state/capif/core.pem")))
    revocation = {"revokeInfo": {"apiInvokerId": invoker.id, "apiIds": ["any"], "cause": "UNEXPECTED_REASON"}, "supportedFeatures": "0"}
    refused(core.post(f"{root}/aef-security/v1/revoke-authorization", revocation), 403, "NOT_OF_THE_CAPIF_AUTHORITY")
    refused(ask("POST", MESSAGE, body), 403, "NOT_REGISTERED")


@case
def what_the_capif_authority_issued_is_never_an_application_function(scene):
    capif = tuple(scene.lab.path(f"pki/capif/ca.{end}") for end in ("pem", "key"))
    names = f"DNS:{scene.weather.description['fqdn']}"
    nobody = Peer(scene.lab, *certificate(scene.folder, "nobody", capif, subject_alternative=names))
    form = {"grant_type": "client_credentials", "client_id": scene.weather.description["client_id"]}
    refused(nobody.http.post(f"{scene.nef}/oauth2/token", data=form), 403, "NOT_AN_INVOKER")
    refused(nobody.post(f"{scene.nef}{RETRIEVE}", scene.key_request(scene.weather), token=scene.weather.granted()), 403, "NOT_AN_INVOKER")
    # The invoker of the same application server has its DNS name, and gets no token of the NEF either.
    invoker = scene.invoker()
    refused(invoker.peer.http.post(f"{scene.nef}/oauth2/token", data=form), 403, "API_NOT_PUBLISHED")


# --- CAPIF-2e ------------------------------------------------------------------------------------------------


@case
def an_invoker_that_agreed_on_nothing_is_invoker_not_trusted(scene):
    invoker = scene.invoker()
    root = root_of(interface_for(scene.profile, "PKI"))
    refused(invoker.peer.post(f"{root}{MESSAGE}", {}), 403, "INVOKER_NOT_TRUSTED")
    psk_refused(scene, invoker.id, bytes(32), UNKNOWN_PSK_IDENTITY)


@case
def an_api_that_is_not_published_is_neither_agreed_upon_nor_called(scene):
    invoker = scene.invoker()
    stranger = "00000000-0000-0000-0000-000000000000"
    refused(invoker.negotiate(scene.profile["aefId"], ["PKI"], apiId=stranger), 403, "API_NOT_PUBLISHED")
    refused(invoker.negotiate(stranger, ["PKI"]), 403, "API_NOT_PUBLISHED")
    ask = invoker.by_pki(scene.profile)
    # Not one of the service APIs; and what is not there at all.
    refused(ask("POST", "/oauth2/token", {}), 403, "API_NOT_PUBLISHED")
    for path in ("/ss-upr/v1/val-services", "/naanf-akma/v1/retrieve-applicationkey", "/"):
        refused(ask("POST", path, {}), 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND")
    assert invoker.discover(**{"api-name": "ss-upr"}) == []
    # Agreed upon for one API, it may not use another.
    topics = invoker.discover(**{"api-name": "msgs-topiclistevent"})[0]
    answer = invoker.negotiate(scene.profile["aefId"], ["PKI"], apiId=topics["apiId"])
    assert answer.status_code == 201, answer.text
    until_refused(lambda: ask("POST", MESSAGE, {}), 403, "API_NOT_ALLOWED")


@case
def an_api_that_its_publisher_withdraws_is_refused_to_those_who_agreed_on_it(scene):
    invoker = scene.invoker()
    ask = invoker.by_pki(scene.profile)
    subscribe = "/msgs-topiclistevent/v1/request-topic-subscription"
    body = {"oriAddr": scene.weather.address(), "msgTopics": ["lab/x"]}
    refused(ask("POST", subscribe, body), 403, "NOT_REGISTERED")
    state = scene.lab.path("state/nef-capif")
    published = json.loads((state / "registration.json").read_text())
    publisher = Peer(scene.lab, state / "apf.pem", state / "apf.key")
    api_id = dict(published["apis"])["msgs-topiclistevent"]
    collection = f"{scene.capif}/published-apis/v1/{published['apf_id']}/service-apis"
    description = publisher.get(f"{collection}/{api_id}").json()
    gone = publisher.request("DELETE", f"{collection}/{api_id}")
    assert gone.status_code == 204, (gone.status_code, gone.text)
    until_refused(lambda: ask("POST", subscribe, body), 403, "API_NOT_ALLOWED")
    refused(invoker.negotiate(scene.profile["aefId"], ["PKI"], apiId=api_id), 403, "API_NOT_PUBLISHED")
    again = publisher.post(collection, description)
    assert again.status_code == 201, (again.status_code, again.text)


@case
def a_call_by_another_method_than_agreed_is_refused(scene):
    invoker = scene.invoker()
    root = root_of(interface_for(scene.profile, "OAUTH"))
    invoker.by_oauth(scene.profile)
    response = invoker.peer.post(f"{root}{MESSAGE}", {})
    refused(response, 401, "NO_TOKEN")
    challenged(response)
    invoker.by_psk(scene.profile)
    until_refused(lambda: invoker.peer.post(f"{root}{MESSAGE}", {}), 403, "OTHER_SECURITY_METHOD")
    key = invoker.aef_psk(scene.profile)
    invoker.by_pki(scene.profile)
    psk_refused(scene, invoker.id, key, UNKNOWN_PSK_IDENTITY)


@case
def a_token_of_another_invoker_changed_or_of_the_nef_itself_is_invalid_token(scene):
    weather, relay = scene.invoker(), scene.invoker(scene.relay)
    weather.by_oauth(scene.profile)
    relay.by_oauth(scene.profile)
    root = root_of(interface_for(scene.profile, "OAUTH"))
    ask = lambda token: weather.peer.post(f"{root}{MESSAGE}", message_to(scene.ue, scene.weather.address(), b"x"), token=token)
    own, others = weather.token().json()["access_token"], relay.token().json()["access_token"]
    # The core function's key as it gives it out, in every form that a careless verifier may take for a secret of HMAC.
    jwk = weather.peer.get(f"{scene.capif}/.well-known/jwks.json").json()["keys"][0]
    point = b"\x04" + decoded(jwk["x"]) + decoded(jwk["y"])
    der = P256_PREFIX + point
    pem = subprocess.run(["openssl", "pkey", "-pubin", "-inform", "DER"], input=der, capture_output=True, check=True).stdout
    secrets = {"PEM": pem, "PEM without its last line's end": pem.rstrip(), "DER": der, "the point": point, "x": decoded(jwk["x"]),
               "the JWK": json.dumps(jwk, separators=(",", ":")).encode(), "nothing": b""}
    for what, secret in secrets.items():
        for algorithm, function in (("HS256", hashlib.sha256), ("HS384", hashlib.sha384), ("HS512", hashlib.sha512)):
            signature = lambda signed: b64url(hmac.new(secret, signed.encode(), function).digest())
            for header in ({"alg": algorithm}, {"alg": algorithm, "kid": None}, {"alg": algorithm, "jwk": jwk}):
                response = ask(tampered(own, header=header, signature=signature))
                assert response.status_code == 401, (algorithm, what, header, response.status_code, response.text)
                refused(response, 401, "INVALID_TOKEN")
                challenged(response, "invalid_token")
    for what, token in {"another's": others,
                        "alg None": tampered(own, header={"alg": "None"}, signature=lambda signed: ""),
                        "alg none, signed": tampered(own, header={"alg": "none"}),
                        "alg none in the name of another": tampered(others, header={"alg": "none"}, claims={"client_id": weather.id}, signature=lambda signed: ""),
                        "no algorithm": tampered(own, header={"alg": None}),
                        "a key that it brings": own_key(own), "the NEF's": scene.weather.granted(), "garbage": "a.b.c",
                        "alg none": tampered(own, header={"alg": "none"}, signature=lambda signed: ""),
                        "another client": tampered(others, claims={"client_id": weather.id})}.items():
        response = ask(token)
        assert response.status_code == 401, (what, response.status_code, response.text)
        refused(response, 401, "INVALID_TOKEN")
        challenged(response, "invalid_token")
    # And its own is good as far as tokens go.
    refused(ask(own), 403, "NOT_REGISTERED")
    narrow = weather.token(scope=f"3gpp#{scene.profile['aefId']}:msgs-topiclistevent").json()["access_token"]
    response = ask(narrow)
    refused(response, 403, "INSUFFICIENT_SCOPE")
    challenged(response, "insufficient_scope")


@case
def a_token_of_the_core_functions_own_key_that_is_wrong_in_one_thing_is_refused(scene):
    weather, relay = scene.invoker(), scene.invoker(scene.relay)
    weather.by_oauth(scene.profile)
    relay.by_oauth(scene.profile)
    root = root_of(interface_for(scene.profile, "OAUTH"))
    # Past the token, it is refused for the originator.
    ask = lambda token: weather.peer.post(f"{root}{MESSAGE}", message_to(scene.ue, scene.relay.address(), b"x"), token=token)
    foreign = {"the NEF's": scene.weather.granted(), "the NRF's": scene.lab.peer("nef").token("AF", "msgs-msgdelivery"),
               "another invoker's": relay.token().json()["access_token"]}
    refused_tokens(ask, weather.token().json()["access_token"], scene.lab.path("state/capif/token.key"), scene.profile["aefId"], foreign)


@case
def the_key_of_another_invoker_is_bad_record_mac(scene):
    weather, relay = scene.invoker(), scene.invoker(scene.relay)
    own, others = weather.aef_psk(scene.profile), relay.aef_psk(scene.profile)
    interface = interface_for(scene.profile, "PSK")
    psk_refused(scene, weather.id, others, BAD_RECORD_MAC)
    psk_refused(scene, relay.id, own, BAD_RECORD_MAC)
    psk_refused(scene, "nobody", own, UNKNOWN_PSK_IDENTITY)
    body = message_to(scene.ue, scene.weather.address(), b"x")
    refused(PskConnection(interface, weather.id, own).request("POST", MESSAGE, body), 403, "NOT_REGISTERED")


@case
def after_off_boarding_nothing_is_left(scene):
    invoker = scene.invoker()
    by_token = invoker.by_oauth(scene.profile)
    body = message_to(scene.ue, scene.weather.address(), b"x")
    refused(by_token("POST", MESSAGE, body), 403, "NOT_REGISTERED")
    key, interface = invoker.aef_psk(scene.profile), interface_for(scene.profile, "PSK")
    open_since_before = PskConnection(interface, invoker.id, key)
    refused(open_since_before.request("POST", MESSAGE, body), 403, "NOT_REGISTERED")
    left = invoker.offboard()
    assert left.status_code == 204, (left.status_code, left.text)
    until_refused(lambda: by_token("POST", MESSAGE, body), 403, "INVOKER_NOT_TRUSTED")
    until_refused(lambda: open_since_before.request("POST", MESSAGE, body), 403, "INVOKER_NOT_TRUSTED")
    psk_refused(scene, invoker.id, key, UNKNOWN_PSK_IDENTITY)
    for answer in (invoker.negotiate(scene.profile["aefId"], ["PKI"]), invoker.token(), invoker.offboard()):
        refused(answer, 403, "CERTIFICATE_REVOKED")


def names_in(cert):
    """The alternative names of a certificate, as a configuration of openssl has them."""
    text = openssl("x509", "-in", cert, "-noout", "-ext", "subjectAltName")
    return [name.strip() for name in text.splitlines()[1].split(",")]


def until_refused(ask, status, cause):
    """What ended a moment ago is refused as soon as the API exposing function is told, and with this cause."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        response = ask()
        if response.status_code == status and response.json().get("cause") == cause:
            return refused(response, status, cause)
        assert time.monotonic() < give_up_at, (response.status_code, response.text)
        time.sleep(0.05)


def main(lab_json, short_lived, *names):
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(lab_json, short_lived, folder)
        case.run(scene, names)
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
