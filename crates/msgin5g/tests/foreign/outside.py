"""Who is refused at the service based interfaces, from outside, with what alert, status and cause.

    outside.py LAB_JSON [CASE...]
"""

import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import uuid

from cases import Cases
from peer import Lab, Peer, refused

case = Cases()


def openssl(*arguments, stdin=None):
    return subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, check=True).stdout


def certificate(folder, name, ca, *, days=30, subject_alternative="DNS:stranger.example", usage="clientAuth,serverAuth"):
    """Certificate and key of a new key pair, signed by the authority `ca` (certificate, key)."""
    key, cert, request, extensions = (folder / f"{name}.{end}" for end in ("key", "pem", "csr", "ext"))
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    openssl("req", "-new", "-key", key, "-subj", f"/O=stranger/CN={name}", "-out", request)
    extensions.write_text(f"keyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n"
                          f"subjectAltName={subject_alternative}\nbasicConstraints=critical,CA:FALSE\n")
    ca_cert, ca_key = ca
    openssl("x509", "-req", "-in", request, "-CA", ca_cert, "-CAkey", ca_key, "-set_serial", uuid.uuid4().int >> 8,
            "-days", days, "-extfile", extensions, "-out", cert)
    return cert, key


class Scene:
    def __init__(self, lab_json, folder):
        self.lab, self.folder = Lab(lab_json), pathlib.Path(folder)
        self.core = self.lab.core
        # Inside the domain: the NEF has another authority for those outside, and the CAPIF core function takes invokers
        # without a certificate, who come to be given one.
        names = ("udm", "ausf", "aanf", "configuration", "nrf")
        self.roots = {name: self.core[name] for name in names if self.core.get(name)}
        self.roots["server"] = self.lab.api

    def certificate(self, name, *, ca=None, **further):
        """A certificate of a new key, signed by the lab's authority or by another one."""
        return certificate(self.folder, name, ca or (self.lab.path(self.lab.lab["ca"]), self.lab.path("pki/ca.key")), **further)

    def authority(self, name):
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 30,
                "-subj", f"/CN={name}", "-keyout", key, "-out", cert)
        return cert, key

    def handshake(self, root, *, cert=None, alpn=("h2",), version=None, speaks=False):
        """Connects and reads, after the preface of HTTP/2 if it `speaks`; the reason of the alert, "closed", or "open"."""
        host, _, port = root.removeprefix("https://").partition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.lab.path(self.lab.lab["ca"]))
        if cert:
            context.load_cert_chain(*cert)
        if alpn:
            context.set_alpn_protocols(alpn)
        if version:
            context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, version
            context.set_ciphers("ALL:@SECLEVEL=0")
        try:
            with socket.create_connection((host, int(port)), timeout=20) as raw:
                with context.wrap_socket(raw, server_hostname=host) as stream:
                    if speaks:
                        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
                    return "open" if stream.recv(9) else "closed"
        except ssl.SSLError as error:
            return error.reason or "closed"
        except (ConnectionResetError, BrokenPipeError):
            return "closed"


# --- the connection ---------------------------------------------------------------------------------------


@case
def no_certificate_is_certificate_required(scene):
    for name, root in scene.roots.items():
        reason = scene.handshake(root)
        assert reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED", (name, reason)


@case
def a_certificate_of_another_authority_is_unknown_ca(scene):
    stranger = scene.certificate("other", ca=scene.authority("other-ca"))
    for name, root in scene.roots.items():
        reason = scene.handshake(root, cert=stranger)
        assert reason == "TLSV1_ALERT_UNKNOWN_CA", (name, reason)


@case
def an_authority_of_the_same_name_is_no_better(scene):
    subject = openssl("x509", "-in", scene.lab.path(scene.lab.lab["ca"]), "-noout", "-subject", "-nameopt", "compat")
    name = subject.decode().strip().removeprefix("subject=").strip()
    cert, key = scene.folder / "same.pem", scene.folder / "same.key"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 30,
            "-subj", name if name.startswith("/") else f"/{name}", "-keyout", key, "-out", cert)
    stranger = scene.certificate("same-name", ca=(cert, key))
    for name, root in scene.roots.items():
        reason = scene.handshake(root, cert=stranger)
        assert reason in ("TLSV1_ALERT_DECRYPT_ERROR", "TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_BAD_CERTIFICATE"), (name, reason)


@case
def a_certificate_that_signs_itself_is_unknown_ca(scene):
    for name, root in scene.roots.items():
        reason = scene.handshake(root, cert=scene.authority("itself"))
        assert reason == "TLSV1_ALERT_UNKNOWN_CA", (name, reason)


@case
def an_expired_certificate_is_certificate_expired(scene):
    expired = scene.certificate("expired", days=-1)
    for name, root in scene.roots.items():
        reason = scene.handshake(root, cert=expired)
        assert reason == "SSLV3_ALERT_CERTIFICATE_EXPIRED", (name, reason)


@case
def a_certificate_for_servers_only_is_no_clients(scene):
    server_only = scene.certificate("server-only", usage="serverAuth")
    for name, root in scene.roots.items():
        reason = scene.handshake(root, cert=server_only)
        assert reason in ("SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "SSLV3_ALERT_BAD_CERTIFICATE"), (name, reason)


@case
def old_versions_of_tls_are_protocol_version(scene):
    for name, root in scene.roots.items():
        reason = scene.handshake(root, version=ssl.TLSVersion.TLSv1_1)
        assert reason == "TLSV1_ALERT_PROTOCOL_VERSION", (name, reason)


@case
def anything_but_http_2_is_closed(scene):
    nf = (scene.lab.path("pki/lab-nf.pem"), scene.lab.path("pki/lab-nf.key"))
    for name, root in scene.roots.items():
        for alpn, reasons in (((), ("closed",)), (("http/1.1",), ("TLSV1_ALERT_NO_APPLICATION_PROTOCOL", "closed"))):
            reason = scene.handshake(root, cert=nf, alpn=alpn)
            assert reason in reasons, (name, alpn, reason)
        assert scene.handshake(root, cert=nf, speaks=True) == "open", name


# --- a good certificate, somebody else's business ----------------------------------------------------------


def refused_to_all(scene, peers, method, url, body, status=403, cause=None):
    for peer in peers:
        refused(peer.request(method, url, body), status, cause)


@case
def nobody_but_the_ausf_registers_or_removes_anchor_keys(scene):
    root = f"{scene.core['aanf']}/naanf-akma/v1"
    info = {"supi": "imsi-001010000000001", "aKId": "0.forged@5gc.mnc001.mcc001.3gppnetwork.org", "kAkma": "00" * 32}
    strangers = [scene.lab.peer("lab-nf"), scene.lab.peer("server"), scene.lab.application_server(0)]
    for peer in strangers:
        for path, body in (("register-anchorkey", info), ("remove-context", {"supi": info["supi"]})):
            response = peer.post(f"{root}/{path}", body)
            assert response.status_code in (401, 403), (path, response.status_code)


@case
def a_stranger_with_a_certificate_of_the_domain_may_do_nothing(scene):
    unknown = uuid.uuid4()
    cert = scene.certificate("unknown", subject_alternative=f"URI:urn:uuid:{unknown},DNS:unknown.example")
    stranger = Peer(scene.lab, *cert)
    message = {"oriAddr": {"addrType": "AS", "addr": "billing@lab.example"}, "msgId": "1", "stoAndFwInd": True,
               "destAddr": {"addrType": "UE", "addr": scene.lab.lab["subscribers"][0]["ue_service_id"]}}
    for root, path, body in (
            (scene.core["aanf"], "/naanf-akma/v1/retrieve-applicationkey", {"afId": "msgin5g.lab.example:0100000007", "aKId": "0.a@b"}),
            (scene.core["ausf"], "/nausf-auth/v1/ue-authentications", {"supiOrSuci": "imsi-001010000000001", "servingNetworkName": "5G:mnc001.mcc001.3gppnetwork.org"}),
            (scene.core["udm"], "/nudm-ueau/v1/imsi-001010000000001/security-information/generate-auth-data",
             {"servingNetworkName": "5G:mnc001.mcc001.3gppnetwork.org", "ausfInstanceId": str(unknown)}),
            (scene.core["configuration"], "/ss-gm/v1/group-documents", {"valGroupId": "mine@lab.example"}),
            (scene.lab.api, "/msgs-msgdelivery/v1/deliver-as-message", message),
            (scene.lab.api, "/msgs-asregistration/v1/registrations", {"asSvcId": "billing@lab.example"})):
        response = stranger.post(f"{root}{path}", body)
        assert response.status_code in (401, 403), (path, response.status_code, response.text)
        refused(response, response.status_code)


@case
def an_application_server_in_the_name_of_another_is_originator_not_allowed(scene):
    billing, fleet = scene.lab.application_server(0), scene.lab.application_server(1)
    other = {"addrType": "AS", "addr": fleet.service_id}
    ue = {"addrType": "UE", "addr": scene.lab.lab["subscribers"][0]["ue_service_id"]}
    for path, body in (
            ("/msgs-asregistration/v1/registrations", {"asSvcId": fleet.service_id, "targetUri": "https://127.0.0.1:9/"}),
            ("/msgs-msgdelivery/v1/deliver-as-message", {"oriAddr": other, "destAddr": ue, "msgId": "1", "stoAndFwInd": True}),
            ("/msgs-msgdelivery/v1/deliver-report", {"oriAddr": other, "destAddr": ue, "msgId": "1", "delivSt": "REPT_DELY_SUCCESS"}),
            ("/msgs-topiclistevent/v1/request-topic-subscription", {"oriAddr": other, "msgTopics": ["lab/x"]})):
        refused(billing.post(f"{scene.lab.api}{path}", body), 403, "ORIGINATOR_NOT_ALLOWED")


@case
def the_server_does_not_get_another_functions_k_af(scene):
    server = scene.lab.peer("server")
    request = {"afId": "configuration.lab.example:0100000007", "aKId": "0.a@b"}
    refused(server.post(f"{scene.core['aanf']}/naanf-akma/v1/retrieve-applicationkey", request), 403, "AF_ID_NOT_ALLOWED")


@case
def an_application_server_does_not_lead_the_server_to_others_doors(scene):
    billing = scene.lab.application_server(0)
    for target in ("https://elsewhere.example/", "https://10.0.0.1/"):
        refused(billing.post(f"{scene.lab.api}/msgs-asregistration/v1/registrations",
                             {"asSvcId": billing.service_id, "targetUri": target}), 403, "TARGET_URI_NOT_ALLOWED")
    for target in ("http://127.0.0.1/", "file:///etc/passwd", "https://user@127.0.0.1/"):
        refused(billing.post(f"{scene.lab.api}/msgs-asregistration/v1/registrations",
                             {"asSvcId": billing.service_id, "targetUri": target}), 400, "MANDATORY_IE_INCORRECT")


def main(lab_json, *names):
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(lab_json, folder)
        case.run(scene, names)
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
