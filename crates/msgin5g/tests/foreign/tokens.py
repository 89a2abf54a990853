"""What opens a producer of the lab's core, and what does not: certificates and access tokens, one wrong thing at a time.

    tokens.py LAB_JSON PROGRAM [CASE...]

Tokens are made by hand with the key of the lab's NRF, so that each is right but for what it is refused for. PROGRAM is
msgin5g, which issues and revokes certificates.
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
import urllib.request
import uuid

from cases import Cases
from outside import Scene, openssl
from peer import Peer, b64url, refused
from ue import Network, Ue, subscribers

# How long the lab may take to close its doors to a certificate that was revoked. It promises 5 seconds; the rest is for
# machines that are busy.
PATIENCE_SECONDS = 90
case = Cases()


class Door:
    """One operation of a producer, and who may use it with which token."""

    def __init__(self, lab, name, caller, other, nf_type, scope, method, url, body=None, *, wanted=None, demands=True):
        self.name, self.caller, self.other, self.nf_type, self.scope = name, caller, other, nf_type, scope
        self.method, self.url, self.body, self.demands = method, url, body, demands
        self.service = scope.split()[0]
        self.wanted = wanted or self.service
        self.root = "https://" + url.removeprefix("https://").split("/")[0]
        self.lab = lab

    def token(self):
        return self.caller.token(self.nf_type, self.scope)

    def ask(self, authorization=(), peer=None):
        """Asks with these values of the header, each as it is, and with no other."""
        headers = [("authorization", value) for value in authorization]
        body = {"json": self.body} if self.body is not None else {}
        return (peer or self.caller).http.request(self.method, self.url, headers=headers, auth=None, **body)

    def opens(self, authorization=(), peer=None):
        response = self.ask(authorization, peer)
        assert response.status_code in (200, 201, 204), (self.name, response.status_code, response.text)
        return response

    def refuses(self, authorization, status, cause, error, peer=None):
        """With status and cause in problem details, and the challenge of RFC 6750."""
        response = self.ask(authorization, peer)
        try:
            refused(response, status, cause)
        except AssertionError as problem:
            raise AssertionError(f"{self.name}: wanted {status} {cause}: {problem}") from None
        challenge = f'Bearer realm="{self.service}"' + (f', error="{error}"' if error else "")
        challenge += f', scope="{self.wanted}"' if error == "insufficient_scope" else ""
        assert response.headers.get_list("www-authenticate") == [challenge], (self.name, cause, response.headers)

    def forged(self, *, header=None, key=None, **claims):
        """The caller's own token with some members of header or claims changed (None: without), signed again."""
        head, body, _ = (decoded(part) for part in self.token().split("."))
        return signed(changed(json.loads(head), header or {}), changed(json.loads(body), claims), key or nrf_key(self.lab))


def changed(members, changes):
    members = members | changes
    return {name: value for name, value in members.items() if value is not None}


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def nrf_key(lab):
    return lab.path("pki/nrf-token.key")


def unsigned(header, claims):
    return f"{b64url(json.dumps(header).encode())}.{b64url(json.dumps(claims).encode())}"


def signed(header, claims, key):
    text = unsigned(header, claims)
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        signature = openssl("dgst", "-sha256", "-sign", key, file.name)
    return f"{text}.{b64url(raw(signature))}"


def raw(der):
    """r and s of 32 octets each, from a SEQUENCE of two INTEGERs (RFC 7518 clause 3.4)."""
    at, numbers = 2, []
    for _ in range(2):
        length = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2:at + 2 + length], "big").to_bytes(32, "big"))
        at += 2 + length
    return b"".join(numbers)


def bearer(token):
    return [f"Bearer {token}"]


class Stage(Scene):
    def __init__(self, lab_json, program, folder):
        super().__init__(lab_json, folder)
        self.program, lab = program, self.lab
        self.subscriber = lab.lab["subscribers"][0]
        af_id = f"{lab.lab['server']['fqdn']}:0100000007"
        server, nef, provisioner = lab.peer("server"), lab.peer("nef"), lab.peer("provisioner")
        self.retrieve = f"{self.core['aanf']}/naanf-akma/v1/retrieve-applicationkey"
        target = "%7B%22valUeId%22%3A%22" + self.subscriber["supi"] + "%22%7D"
        another_amf = self.issued("another-amf", "AMF")
        begin = {"supiOrSuci": self.subscriber["supi"], "servingNetworkName": Network(lab_json).serving_network_name}
        self.doors = [
            Door(lab, "AAnF", server, nef, "AANF", "naanf-akma naanf-akma:applicationkeyget", "POST", self.retrieve,
                 {"afId": af_id, "aKId": "0.nobody@5gc.mnc001.mcc001.3gppnetwork.org"},
                 wanted="naanf-akma naanf-akma:applicationkeyget"),
            Door(lab, "server", nef, lab.application_server(0), "AF", "msgs-asregistration", "POST",
                 f"{lab.api}/msgs-asregistration/v1/registrations", {"asSvcId": "weather@outside.example"}),
            Door(lab, "Configuration Function", server, provisioner, "AF", "ss-upr", "GET",
                 f"{self.core['configuration']}/ss-upr/v1/val-services?val-service-id=msgin5g&val-tgt-ue={target}"),
            Door(lab, "UDM", lab.peer("aanf"), nef, "UDM", "nudm-sdm", "GET",
                 f"{self.core['udm']}/nudm-sdm/v2/{self.subscriber['supi']}/id-translation-result",
                 wanted="nudm-sdm nudm-sdm:id-translation-result:read"),
            # lab.json's nf_client needs no token; one that it shows is checked as any other.
            Door(lab, "AUSF", lab.peer("lab-nf"), another_amf, "AUSF", "nausf-auth", "POST",
                 f"{self.core['ausf']}/nausf-auth/v1/ue-authentications", begin,
                 wanted="nausf-auth nausf-auth:ue-authentications", demands=False),
        ]

    def run(self, *arguments):
        return subprocess.run([self.program, *arguments], capture_output=True, check=True).stdout

    def issued(self, name, nf_type):
        """A function that nobody has heard of, with a certificate of the lab's authority."""
        self.run("lab", "issue", "--dir", self.lab.directory, "--name", name, "--nf-type", nf_type)
        return Peer(self.lab, self.lab.path(f"pki/{name}.pem"), self.lab.path(f"pki/{name}.key"))

    def key(self):
        path = self.folder / f"{uuid.uuid4()}.key"
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)
        return path

    def refused_everywhere(self, token_of, status, cause, error):
        for door in self.doors:
            door.refuses(bearer(token_of(door)), status, cause, error)


# --- what opens -------------------------------------------------------------------------------------------------


@case
def the_right_token_opens_each_door(stage):
    for door in stage.doors:
        door.opens(bearer(door.token()))
        # And so does one made here, so that what follows is refused for what is wrong with it and nothing else.
        door.opens(bearer(door.forged()))
        door.opens([f"bearer {door.token()}"])


# --- without a token --------------------------------------------------------------------------------------------


@case
def no_token_where_one_is_demanded_is_token_missing(stage):
    for door in stage.doors:
        if door.demands:
            door.refuses([], 401, "TOKEN_MISSING", None)
        else:
            door.opens()


@case
def other_credentials_are_no_token(stage):
    for door in stage.doors:
        door.refuses(["Basic bXNnaW41ZzptZXNzYWdl"], 401, "SCHEME_UNKNOWN", None)
        door.refuses(bearer(door.token()) * 2, 400, "HEADER_REPEATED", "invalid_request")


# --- tokens for somebody or something else -----------------------------------------------------------------------


@case
def another_functions_token_is_token_subject(stage):
    stage.refused_everywhere(lambda door: door.other.token(door.nf_type, door.scope), 401, "TOKEN_SUBJECT", "invalid_token")
    stage.refused_everywhere(lambda door: door.forged(sub=str(uuid.uuid4())), 401, "TOKEN_SUBJECT", "invalid_token")


@case
def a_token_for_another_producer_is_token_audience(stage):
    for audience in ("SMF", [str(uuid.uuid4())], []):
        stage.refused_everywhere(lambda door, audience=audience: door.forged(aud=audience), 401, "TOKEN_AUDIENCE", "invalid_token")


@case
def a_token_for_another_part_of_the_network_is_token_restriction(stage):
    elsewhere = {"mcc": "999", "mnc": "99"}
    stage.refused_everywhere(lambda door: door.forged(producerPlmnId=elsewhere), 401, "TOKEN_RESTRICTION", "invalid_token")


@case
def a_token_for_another_service_is_insufficient_scope(stage):
    for scope in ("nsmf-pdusession", "", "naanf-akm"):
        stage.refused_everywhere(lambda door, scope=scope: door.forged(scope=scope), 403, "TOKEN_SCOPE", "insufficient_scope")


@case
def a_token_for_another_operation_of_the_service_is_insufficient_scope(stage):
    aanf = stage.doors[0]
    aanf.refuses(bearer(aanf.forged(scope="naanf-akma naanf-akma:anchorkey")), 403, "TOKEN_SCOPE", "insufficient_scope")


@case
def a_token_of_another_issuer_is_token_issuer(stage):
    stage.refused_everywhere(lambda door: door.forged(iss=str(uuid.uuid4())), 401, "TOKEN_ISSUER", "invalid_token")


@case
def a_token_of_somebody_who_calls_itself_the_nrf_is_not_verified(stage):
    key = stage.key()
    stage.refused_everywhere(lambda door: door.forged(key=key), 401, "TOKEN_SIGNATURE", "invalid_token")
    stage.refused_everywhere(lambda door: door.forged(key=key, header={"kid": None}), 401, "TOKEN_SIGNATURE", "invalid_token")
    stage.refused_everywhere(lambda door: door.forged(key=key, header={"kid": "mine"}), 401, "TOKEN_KEY_UNKNOWN", "invalid_token")


@case
def a_token_out_of_its_time_is_refused(stage):
    now = int(time.time())
    stage.refused_everywhere(lambda door: door.forged(exp=now - 60), 401, "TOKEN_EXPIRED", "invalid_token")
    for claim in ("iat", "nbf"):
        stage.refused_everywhere(lambda door, claim=claim: door.forged(**{claim: now + 600}), 401, "TOKEN_NOT_YET_VALID", "invalid_token")


# --- tokens that nobody has signed -------------------------------------------------------------------------------


@case
def alg_none_is_token_algorithm(stage):
    for alg in ("none", "None", "NONE", ""):
        def unsecured(door, alg=alg):
            head, body, signature = door.token().split(".")
            head = b64url(json.dumps(json.loads(decoded(head)) | {"alg": alg}).encode())
            return f"{head}.{body}."
        stage.refused_everywhere(unsecured, 401, "TOKEN_ALGORITHM", "invalid_token")


@case
def a_token_whose_signature_is_taken_away_or_worth_nothing_is_not_verified(stage):
    nothing = b64url(bytes(64))
    stage.refused_everywhere(lambda door: door.token().rpartition(".")[0] + f".{nothing}", 401, "TOKEN_SIGNATURE", "invalid_token")
    stage.refused_everywhere(lambda door: door.token().rpartition(".")[0] + ".", 401, "TOKEN_SIGNATURE", "invalid_token")


@case
def the_public_key_is_no_secret_of_an_hmac(stage):
    jwks = stage.lab.path("pki/nrf-jwks.json").read_bytes()
    pem = openssl("ec", "-in", nrf_key(stage.lab), "-pubout")
    der = openssl("ec", "-in", nrf_key(stage.lab), "-pubout", "-outform", "DER")
    for secret in (pem, pem.strip(), der, der[-65:], jwks):
        for alg, cause in (("HS256", "TOKEN_ALGORITHM"), ("HS512", "TOKEN_ALGORITHM"), ("ES256", "TOKEN_SIGNATURE")):
            def confused(door, alg=alg, secret=secret):
                head, body, _ = door.token().split(".")
                head = b64url(json.dumps(json.loads(decoded(head)) | {"alg": alg}).encode())
                digest = hashlib.sha512 if alg == "HS512" else hashlib.sha256
                mac = hmac.digest(secret, f"{head}.{body}".encode(), digest)
                # As long as the signature that its name promises.
                return f"{head}.{body}.{b64url(mac * 2 if alg == 'ES256' else mac)}"
            stage.refused_everywhere(confused, 401, cause, "invalid_token")


@case
def a_changed_claim_is_token_signature(stage):
    for claim, value in (("scope", "everything"), ("exp", int(time.time()) + 86_400), ("sub", str(uuid.uuid4())), ("aud", "SMF")):
        def altered(door, claim=claim, value=value):
            head, body, signature = door.token().split(".")
            return f"{head}.{b64url(json.dumps(json.loads(decoded(body)) | {claim: value}).encode())}.{signature}"
        stage.refused_everywhere(altered, 401, "TOKEN_SIGNATURE", "invalid_token")


@case
def a_token_brings_neither_its_own_key_nor_demands(stage):
    key = stage.key()
    point = openssl("ec", "-in", key, "-pubout", "-outform", "DER")[-64:]
    jwk = {"kty": "EC", "crv": "P-256", "x": b64url(point[:32]), "y": b64url(point[32:])}
    for header in ({"jwk": jwk}, {"jku": "https://127.0.0.1:9/"}, {"x5u": "https://127.0.0.1:9/"}, {"x5c": ["MIIB"]}):
        stage.refused_everywhere(lambda door, header=header: door.forged(key=key, header=header), 401, "TOKEN_BRINGS_KEY", "invalid_token")
    for header in ({"crit": ["exp"]}, {"b64": False}, {"zip": "DEF"}, {"typ": "id+jwt"}):
        stage.refused_everywhere(lambda door, header=header: door.forged(header=header), 401, "TOKEN_EXTENSION", "invalid_token")


@case
def what_is_no_token_is_token_malformed_or_too_long(stage):
    for text in ("nonsense", "a.b", "a.b.c", "....", "e30.e30.e30"):
        stage.refused_everywhere(lambda door, text=text: text, 401, "TOKEN_MALFORMED", "invalid_token")
    stage.refused_everywhere(lambda door: door.token() + "A" * 8_192, 401, "TOKEN_TOO_LONG", "invalid_token")


# --- what a token does not replace -------------------------------------------------------------------------------


@case
def an_application_function_gets_its_own_k_af_and_no_other(stage):
    fqdns = {"server": "msgin5g.lab.example", "configuration": "configuration.lab.example", "nef": "weather.outside.example"}
    for name in fqdns:
        peer = stage.lab.peer(name)
        for fqdn in fqdns.values():
            response = peer.post(stage.retrieve, {"afId": f"{fqdn}:0100000007", "aKId": "0.nobody@5gc.mnc001.mcc001.3gppnetwork.org"})
            if fqdn == fqdns[name]:
                assert response.status_code == 204, (name, fqdn, response.status_code, response.text)
            else:
                refused(response, 403, "AF_ID_NOT_ALLOWED")


@case
def the_supi_comes_with_the_scope_for_it_only(stage):
    network = Network(stage.lab.path("lab.json"))
    a_kid = Ue(network, subscribers(network, 1)[0]).authenticate().a_kid
    body = {"afId": f"{stage.lab.lab['server']['fqdn']}:0100000007", "aKId": a_kid}
    server, narrow = stage.lab.peer("server"), "naanf-akma naanf-akma:applicationkeyget"
    told = server.post(stage.retrieve, body).json()
    assert told["supi"] == stage.subscriber["supi"], sorted(told)
    less = server.post(stage.retrieve, body, token=server.token("AANF", narrow)).json()
    assert less["kaf"] == told["kaf"] and "supi" not in less, sorted(less)


@case
def who_needs_no_token_is_refused_with_a_wrong_one(stage):
    billing, door = stage.lab.application_server(0), stage.doors[1]
    own = Door(stage.lab, "server, from an AS", billing, door.caller, door.nf_type, door.scope, door.method, door.url,
               {"asSvcId": billing.service_id})
    own.opens()
    own.opens(bearer(own.token()))
    own.refuses(bearer(door.token()), 401, "TOKEN_SUBJECT", "invalid_token")
    own.refuses(bearer(own.forged(exp=int(time.time()) - 60)), 401, "TOKEN_EXPIRED", "invalid_token")
    own.refuses(bearer(own.forged(key=stage.key())), 401, "TOKEN_SIGNATURE", "invalid_token")


@case
def the_nrf_gives_nobody_a_scope_that_is_not_for_it(stage):
    lab = stage.lab
    stranger = stage.issued("stranger", "AF")
    for peer, nf_type, scope in (
            (stranger, "AANF", "naanf-akma"), (lab.application_server(0), "AANF", "naanf-akma naanf-akma:applicationkeyget"),
            (lab.peer("nef"), "AANF", "naanf-akma naanf-akma:applicationkeyget:supi-access"),
            (lab.peer("server"), "AANF", "naanf-akma naanf-akma:anchorkey"), (stranger, "AF", "ss-upr"), (stranger, "AF", "ss-gm"),
            (lab.peer("server"), "AF", "msgin5g-configuration"), (lab.peer("server"), "UDM", "nudm-ueau")):
        answer = peer.http.post(f"{stage.core['nrf']}/oauth2/token", data={
            "grant_type": "client_credentials", "nfInstanceId": peer.nf_instance_id, "targetNfType": nf_type, "scope": scope})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope"), (scope, answer.status_code, answer.text)


def assertion(peer, *, cert=None, key=None, **claims):
    """A client credentials assertion (TS 33.501 clause 13.3.8) of this peer, or of whoever signs with another key."""
    der = openssl("x509", "-in", cert or peer.cert, "-outform", "DER")
    header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
    now = int(time.time())
    return signed(header, {"sub": peer.nf_instance_id, "aud": "NRF", "iat": now, "exp": now + 60} | claims, key or peer.key)


@case
def the_nrf_believes_no_assertion_of_a_foreign_signer(stage):
    lab = stage.lab
    # The connection is another function's, so that the assertion alone says who asks.
    server, connection = lab.peer("server"), lab.peer("lab-nf")
    form = {"grant_type": "client_credentials", "nfInstanceId": server.nf_instance_id, "targetNfType": "AANF",
            "scope": "naanf-akma naanf-akma:applicationkeyget"}
    ask = lambda text: connection.http.post(f"{stage.core['nrf']}/oauth2/token", data=form, headers={"3gpp-sbi-client-credentials": text})
    answer = ask(assertion(server))
    assert answer.status_code == 200, (answer.status_code, answer.text)
    # A certificate that says the same of its holder, on the word of an authority that nobody here trusts.
    names = f"URI:urn:uuid:{server.nf_instance_id},DNS:server.lab.example"
    foreign, foreign_key = stage.certificate("foreign-signer", ca=stage.authority("foreign-ca"), subject_alternative=names)
    other = lab.peer("udm")
    for what, text in {
        "a foreign authority's certificate": assertion(server, cert=foreign, key=foreign_key),
        "the right certificate, a foreign key": assertion(server, key=foreign_key),
        "a foreign certificate, the right key": assertion(server, cert=foreign),
        "another function's": assertion(server, cert=other.cert, key=other.key),
        "for somebody else": assertion(server, aud="AANF"),
        "of yesterday": assertion(server, iat=int(time.time()) - 86_400, exp=int(time.time()) - 86_340),
        "for ever": assertion(server, exp=int(time.time()) + 86_400),
        "nothing": "x.y.z",
    }.items():
        answer = ask(text)
        assert (answer.status_code, answer.json().get("error")) == (400, "invalid_client"), (what, answer.status_code, answer.text)


@case
def services_say_at_the_nrf_that_they_want_tokens(stage):
    seen = set()
    nrf, asks = f"{stage.core['nrf']}/nnrf-nfm/v1/nf-instances", stage.lab.peer("lab-nf")
    for item in asks.get(nrf).json()["_links"]["item"]:
        profile = asks.get(item["href"]).json()
        seen.add(profile["nfType"])
        for service in profile.get("nfServices", []):
            assert service["oauth2Required"] is True, (profile["nfType"], service["serviceName"])
            seen.add(service["serviceName"])
    wanted = {"AANF", "AUSF", "UDM", "NEF", "AF", "naanf-akma", "nausf-auth", "nudm-ueau", "nudm-sdm", "ss-upr", "ss-gm",
              "msgin5g-configuration", "msgs-asregistration", "msgs-msgdelivery", "msgs-topiclistevent"}
    assert wanted <= seen, wanted - seen
    stranger = stage.lab.peer("nef").nf_instance_id
    assert asks.get(f"{nrf}/{stranger}").json()["nfType"] == "NEF"


@case
def decisions_are_counted(stage):
    udm, nrf = stage.doors[3], stage.core["nrf"]
    samples = ('sbi_authorizations_total{function="udm",outcome="refused",reason="token_missing"}',
               'sbi_authorizations_total{function="udm",outcome="allowed",reason="token"}',
               'sbi_authorizations_total{function="nrf",outcome="refused",reason="invalid_scope"}')
    before = [counted(stage.core["admin"], sample) for sample in samples]
    udm.refuses([], 401, "TOKEN_MISSING", None)
    udm.opens(bearer(udm.token()))
    peer = stage.lab.peer("lab-nf")
    peer.http.post(f"{nrf}/oauth2/token", data={"grant_type": "client_credentials", "nfInstanceId": peer.nf_instance_id,
                                                "targetNfType": "UDM", "scope": "nudm-sdm"})
    after = [counted(stage.core["admin"], sample) for sample in samples]
    assert all(late > early for early, late in zip(before, after, strict=True)), (before, after)


def counted(root, sample):
    with urllib.request.urlopen(f"{root}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return next((int(line.split()[-1]) for line in lines if line.startswith(sample + " ")), 0)


# --- certificates -------------------------------------------------------------------------------------------------


@case
def without_a_certificate_of_the_domain_no_token_is_looked_at(stage):
    stranger = stage.certificate("stranger-of-another", ca=stage.authority("another-ca"))
    for door in [*stage.doors, Door(stage.lab, "NRF", None, None, "", "-", "POST", f"{stage.core['nrf']}/oauth2/token")]:
        reason = stage.handshake(door.root)
        assert reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED", (door.name, reason)
        reason = stage.handshake(door.root, cert=stranger)
        assert reason == "TLSV1_ALERT_UNKNOWN_CA", (door.name, reason)


@case
def a_revoked_certificate_opens_nothing_and_what_it_has_open_is_closed(stage):
    gone = stage.issued("gone", "AF")
    # While it is good it is a function like any other, and gets a token.
    token = gone.token("AF", "msgs-asregistration")
    server = stage.doors[1]
    refused(gone.post(server.url, {"asSvcId": "gone@lab.example"}, token=token), 403)
    roots = sorted({door.root for door in stage.doors} | {stage.core["nrf"]})
    files, streams = (gone.cert, gone.key), []
    for root in roots:
        assert stage.handshake(root, cert=files, speaks=True) == "open", root
        streams.append(connected(stage.lab, root, files))
    stage.run("lab", "revoke", "--dir", stage.lab.directory, "gone")
    until = time.monotonic() + PATIENCE_SECONDS
    for root in roots:
        while (reason := stage.handshake(root, cert=files)) != "SSLV3_ALERT_CERTIFICATE_REVOKED":
            assert time.monotonic() < until, (root, reason)
            time.sleep(0.1)
    for root, stream in zip(roots, streams, strict=True):
        assert ends(stream, until), f"{root} goes on with a revoked certificate"
    # Nobody else is meant.
    for door in stage.doors:
        door.opens(bearer(door.token()))


def connected(lab, root, files):
    """A connection with settings exchanged and nothing asked."""
    host, _, port = root.removeprefix("https://").partition(":")
    context = lab.context(*files)
    context.set_alpn_protocols(["h2"])
    stream = context.wrap_socket(socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS), server_hostname=host)
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    return stream


def ends(stream, until):
    try:
        while time.monotonic() < until:
            if not stream.recv(4_096):
                return True
    except TimeoutError:
        return False
    except (ssl.SSLError, OSError):
        return True
    finally:
        stream.close()
    return False


def main(lab_json, program, *names):
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(lab_json, program, pathlib.Path(folder))
        case.run(stage, names)
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
